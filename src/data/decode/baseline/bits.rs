//! The compressed bits of a scan: stuffed bytes taken out beforehand, so that the reader refills eight bytes at a time without
//! looking at any of them.

/// So many zero bytes follow the last, for reads beyond the end.
const PAD: usize = 16;

/// The bits of a scan without stuffing and markers.
#[derive(Default)]
pub struct Clean {
    bytes: Vec<u8>,
    /// Where the intervals between restart markers end; the last is the end of the scan.
    pub ends: Vec<usize>,
}

impl Clean {
    /// Fills itself from the bytes behind a scan's header. Answers where the marker that ends it has its second byte; `None` if
    /// there is none, or if restart markers are out of order.
    pub fn fill(&mut self, bytes: &[u8]) -> Option<usize> {
        const CHUNK: usize = 16;
        self.bytes.clear();
        self.ends.clear();
        self.bytes.reserve(bytes.len() + PAD + CHUNK);
        let mut at = 0;
        loop {
            // Whole chunks without any 0xff go as they are.
            while let Some(chunk) = bytes.get(at..at + CHUNK).and_then(|chunk| chunk.first_chunk::<CHUNK>()) {
                if chunk.iter().fold(false, |any, &byte| any | (byte == 0xff)) {
                    break;
                }
                self.bytes.extend_from_slice(chunk);
                at += CHUNK;
            }
            let marked = bytes[at..].iter().position(|&byte| byte == 0xff)?;
            self.bytes.extend_from_slice(&bytes[at..at + marked]);
            at += marked + 2;
            match *bytes.get(at - 1)? {
                0 => self.bytes.push(0xff),
                restart @ 0xd0..=0xd7 if usize::from(restart & 7) == self.ends.len() % 8 => {
                    self.ends.push(self.bytes.len());
                }
                0xd0..=0xd7 | 0xff => return None,
                _ => {
                    self.ends.push(self.bytes.len());
                    self.bytes.extend_from_slice(&[0; PAD]);
                    return Some(at - 1);
                }
            }
        }
    }

    /// A reader of one interval.
    pub fn interval(&self, index: usize) -> Option<Bits<'_>> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(Bits { bytes: &self.bytes, at: start, word: 0, count: 0, end })
    }
}

/// Bits in order, the next one topmost in `word`.
#[derive(Clone, Copy)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// The first byte that is not wholly in `word`.
    at: usize,
    word: u64,
    /// Valid bits in `word`; those below may hold the following ones already.
    count: u32,
    end: usize,
}

impl Bits<'_> {
    /// Makes sure of 56 bits; behind the end there are zeros.
    #[inline(always)]
    pub fn refill(&mut self) {
        let chunk = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>());
        let next = chunk.map_or(0, |chunk| u64::from_be_bytes(*chunk));
        self.word |= next >> self.count;
        self.at += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
    }

    /// The next `N` bits, which stay.
    #[inline(always)]
    pub fn peek<const N: u32>(&self) -> usize {
        (self.word >> (64 - N)) as usize
    }

    /// The word as it is, for the value bits behind a code.
    #[inline(always)]
    pub fn word(&self) -> u64 {
        self.word
    }

    /// Takes as many bits as the lowest six bits of `n` say.
    #[inline(always)]
    pub fn take(&mut self, n: u32) {
        self.word = self.word.wrapping_shl(n);
        self.count = self.count.wrapping_sub(n & 63);
    }

    fn taken(&self) -> usize {
        (self.at * 8).saturating_sub(self.count as usize)
    }

    /// Whether more was taken than there is.
    pub fn overrun(&self) -> bool {
        self.taken() > self.end * 8
    }

    /// Whether all was taken but the padding of the last byte.
    pub fn at_end(&self) -> bool {
        self.taken().div_ceil(8) == self.end
    }
}
