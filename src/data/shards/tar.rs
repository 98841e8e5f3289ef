//! The files of a tar archive and where they lie in it, from its headers alone: contents are stepped over.
//!
//! POSIX 1003.1-2017, "pax Interchange Format" (ustar, pax), and GNU tar's manual, "Basic Tar Format" (long names, numbers of
//! base 256). Whatever the numbers in an archive say, no more memory is taken than [`MAX_EXTENDED`], and every header lies
//! behind the one before.

use std::io;

const BLOCK: u64 = 512;
/// Long names and pax records beyond this are taken for damage.
const MAX_EXTENDED: u64 = 1 << 20;
/// So much is looked at behind the end of an archive: writers pad to 10 KiB, some to more.
const PADDING: u64 = 1 << 16;

/// A regular file of an archive, or another name of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As archived, without `.` and empty parts: `./a//b.jpg` is `a/b.jpg`.
    pub name: String,
    /// Where its bytes begin.
    pub offset: u64,
    pub size: u64,
    /// A hard link has no bytes of its own: the name of the file that has them.
    pub link: Option<String>,
}

/// Where an archive is not one, and what was found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub offset: u64,
    pub problem: String,
}

/// Calls `visit` with the regular files and hard links, in their order; folders, symbolic links and devices are passed over, as
/// are files of a hidden name or folder. `read` fills its buffer from an offset on; the archive has `length` bytes.
///
/// Errors: an archive that is cut off, that is none, or that holds what is not understood.
pub fn members(
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    length: u64,
    mut visit: impl FnMut(Member),
) -> Result<(), Damage> {
    let archive = Archive { read, length };
    let (mut offset, mut extended) = (0, Extended::default());
    loop {
        let Some(header) = archive.header(offset)? else { return archive.check_end(offset) };
        let failed = |problem: String| Damage { offset, problem };
        let data = offset + BLOCK;
        let size = extended.size.filter(|_| !header.is_about_next()).unwrap_or(header.size);
        // Links and devices may state the size of what they stand for.
        let stored = if header.has_data() { size } else { 0 };
        if stored > length - data {
            let name = extended.name.as_deref().unwrap_or(&header.name);
            let left = length - data;
            return Err(failed(format!("{} has {stored} bytes, of which {left} are there: {CUT_OFF}", text(name))));
        }
        match header.kind {
            b'L' => extended.name = Some(until_nul(&archive.extended(data, stored)?).to_vec()),
            b'x' => extended.read(&archive.extended(data, stored)?).map_err(failed)?,
            b'K' => extended.link = Some(until_nul(&archive.extended(data, stored)?).to_vec()),
            b'g' => {} // What holds for all files, of which nothing here is told.
            _ => {
                let Extended { name, link, sparse, .. } = std::mem::take(&mut extended);
                let name = name.unwrap_or_else(|| header.name.clone());
                if sparse || header.kind == b'S' {
                    return Err(failed(format!("{} is stored without its holes: archive it without -S", text(&name))));
                }
                let target = || visible(&text(link.as_deref().unwrap_or(&header.link)));
                let link = if header.kind == b'1' { target() } else { None };
                // Before ustar, a slash at the end was what told a folder.
                let is_file = header.is_file() && !name.ends_with(b"/");
                if let Some(name) = visible(&text(&name)).filter(|_| is_file || link.is_some()) {
                    visit(Member { name, offset: data, size, link });
                }
            }
        }
        // No more than half a block beyond the end: what is missing there shows at the next header.
        offset = data + stored.next_multiple_of(BLOCK);
    }
}

const CUT_OFF: &str = "the archive was cut off; make or copy it anew";

struct Archive<R> {
    read: R,
    length: u64,
}

struct Header {
    name: Vec<u8>,
    /// What a link leads to.
    link: Vec<u8>,
    size: u64,
    kind: u8,
}

impl Header {
    /// A file by POSIX: '0', its ancient form, or one that is to be contiguous.
    fn is_file(&self) -> bool {
        matches!(self.kind, b'0' | 0 | b'7')
    }

    /// Whether it tells something of the file behind it, or of all.
    fn is_about_next(&self) -> bool {
        matches!(self.kind, b'L' | b'K' | b'x' | b'g')
    }

    /// Whether blocks follow. Kinds that nobody knows are taken for files, as POSIX has it.
    fn has_data(&self) -> bool {
        !matches!(self.kind, b'1'..=b'6')
    }
}

impl<R: Fn(&mut [u8], u64) -> io::Result<()>> Archive<R> {
    /// The header at `offset`; `None` for the empty block that ends an archive.
    fn header(&self, offset: u64) -> Result<Option<Header>, Damage> {
        let failed = |problem: String| Damage { offset, problem };
        if offset == self.length {
            return Err(failed(format!("the empty blocks that end an archive are missing: {CUT_OFF}")));
        }
        if self.length < offset.saturating_add(BLOCK) {
            let problem = format!("a header of {BLOCK} bytes has no place before the end: {CUT_OFF}");
            return Err(Damage { offset: offset.min(self.length), problem });
        }
        let mut block = [0; BLOCK as usize];
        self.bytes(&mut block, offset)?;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        // The sum counts its own field as spaces; ancient writers took bytes as signed.
        let counted = || block.iter().enumerate().map(|(i, &byte)| if (148..156).contains(&i) { b' ' } else { byte });
        let (sum, signed): (i64, i64) =
            (counted().map(i64::from).sum(), counted().map(|byte| i64::from(byte as i8)).sum());
        let stated = number(&block[148..156]).and_then(|stated| i64::try_from(stated).ok());
        if stated.is_none_or(|stated| stated != sum && stated != signed) {
            return Err(failed(match offset {
                0 => "it does not begin with the header of a file: it is no tar archive, or damaged".to_owned(),
                _ => "expected the header of a file: the archive is damaged; make or copy it anew".to_owned(),
            }));
        }
        let size = number(&block[124..136]).ok_or_else(|| failed("the size of a file is no number".into()))?;
        let (name, prefix) = (until_nul(&block[..100]), until_nul(&block[345..500]));
        // GNU's own format has other things in the place of ustar's prefix.
        let name = match block[257..263] == *b"ustar\0" && !prefix.is_empty() {
            true => [prefix, b"/", name].concat(),
            false => name.to_vec(),
        };
        Ok(Some(Header { name, link: until_nul(&block[157..257]).to_vec(), size, kind: block[156] }))
    }

    /// What stands in place of a file and is told of the next one.
    fn extended(&self, offset: u64, size: u64) -> Result<Vec<u8>, Damage> {
        if size > MAX_EXTENDED {
            let problem = format!("a name or a record of {size} bytes: the archive is damaged; make or copy it anew");
            return Err(Damage { offset, problem });
        }
        let mut bytes = vec![0; size as usize];
        self.bytes(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Behind the end there is nothing but padding. More archives there, as `cat` leaves them, would be lost without a word.
    fn check_end(&self, offset: u64) -> Result<(), Damage> {
        let mut rest = vec![0; (self.length - offset).min(PADDING) as usize];
        self.bytes(&mut rest, offset)?;
        match rest.iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(_) => Err(Damage {
                offset,
                problem: "more follows behind the end of the archive: keep archives apart instead of joining them"
                    .into(),
            }),
        }
    }

    fn bytes(&self, buffer: &mut [u8], offset: u64) -> Result<(), Damage> {
        (self.read)(buffer, offset).map_err(|error| Damage { offset, problem: format!("cannot read: {error}") })
    }
}

/// What stands before a file's header and holds for it alone.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Extended {
    /// Records of pax: their length in decimal, a space, `key=value`, and a line break.
    fn read(&mut self, mut records: &[u8]) -> Result<(), String> {
        while !records.is_empty() {
            let broken = || "a pax record is broken: the archive is damaged; make or copy it anew".to_owned();
            let space = records.iter().take(20).position(|&byte| byte == b' ').ok_or_else(broken)?;
            let length = decimal(&records[..space]).and_then(|length| usize::try_from(length).ok());
            let record = length.and_then(|length| records.get(..length)).ok_or_else(broken)?;
            let pair = record.get(space + 1..).and_then(|pair| pair.strip_suffix(b"\n")).ok_or_else(broken)?;
            let equals = pair.iter().position(|&byte| byte == b'=').ok_or_else(broken)?;
            let (key, value) = (&pair[..equals], &pair[equals + 1..]);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value).ok_or_else(broken)?),
                _ => self.sparse |= key.starts_with(b"GNU.sparse."),
            }
            records = &records[record.len()..];
        }
        Ok(())
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// A number of a header: octal text, or, where its first bit is set, base 256.
fn number(field: &[u8]) -> Option<u64> {
    if let [first @ 0x80..=0xfe, rest @ ..] = field {
        let first = u64::from(first & 0x7f);
        return rest.iter().try_fold(first, |value, &byte| Some(value.checked_mul(256)? | u64::from(byte)));
    }
    let text = std::str::from_utf8(until_nul(field)).ok()?.trim_matches(' ');
    match text {
        "" => Some(0),
        _ if text.starts_with('+') => None,
        _ => u64::from_str_radix(text, 8).ok(),
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.iter().position(|&byte| byte == 0).map_or(bytes, |end| &bytes[..end])
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The name without `.` and empty parts; `None` for one with a hidden part, which a folder's list leaves out, too.
fn visible(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    (!parts.is_empty() && parts.iter().all(|part| !part.starts_with('.'))).then(|| parts.join("/"))
}
