//! Markers of a JPEG file up to its scan (ITU-T T.81, annex B), for files of the one kind that this decoder takes.

use image::metadata::Orientation;

use super::huffman::Codes;

/// What a file says before its pixels.
pub struct Header {
    pub width: usize,
    pub height: usize,
    /// One for gray, or Y, Cb and Cr.
    pub components: Vec<Component>,
    /// Luma samples per chroma sample along x and y: (1, 1), (2, 1), (1, 2) or (2, 2).
    pub sampling: (usize, usize),
    /// MCUs between restart markers; 0 is all.
    pub restart_interval: usize,
    /// Where the compressed bytes begin.
    pub data: usize,
}

/// One color's coding.
pub struct Component {
    /// In the order of the scan, zigzag: divisors, with the place in the block.
    pub quant: [(i16, u8); 64],
    pub dc: std::sync::Arc<Codes>,
    pub ac: std::sync::Arc<Codes>,
}

/// Where the coefficients of a scan belong: `8 · v + u` for frequency `u` along x and `v` along y.
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A component as the frame's header declares it.
#[derive(Clone, Copy)]
struct Declared {
    id: u8,
    sampling: (u8, u8),
    table: u8,
}

/// How many codes there are of each length, and their symbols.
type RawCodes = ([u8; 16], Vec<u8>);

/// Everything read so far.
#[derive(Default)]
struct Tables {
    quant: [Option<[u16; 64]>; 4],
    /// Raw, by class (DC, AC) and number: a table is built once it is needed.
    codes: [[Option<RawCodes>; 4]; 2],
    frame: Option<(usize, usize, Vec<Declared>)>,
    restart_interval: usize,
    jfif: bool,
    /// What Adobe's marker says of the colors.
    adobe: Option<u8>,
    exif: bool,
}

impl Header {
    /// `None` for whatever is not a sequential 8-bit Huffman-coded picture, upright, gray or YCbCr, all in one scan.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut tables = Tables::default();
        let mut at = 2; // Behind the start marker.
        loop {
            let &[0xff, marker, high, low] = bytes.get(at..at + 4)?.first_chunk()? else { return None };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let segment = bytes.get(at + 4..at + 2 + length)?;
            at += 2 + length;
            match marker {
                0xda => return tables.scan(segment, at),
                _ => tables.read(marker, segment)?,
            }
        }
    }
}

impl Tables {
    fn read(&mut self, marker: u8, segment: &[u8]) -> Option<()> {
        match marker {
            0xc0 | 0xc1 => self.frame(segment),
            0xc4 => self.huffman(segment),
            0xdb => self.quantization(segment),
            0xdd => {
                self.restart_interval = usize::from(u16::from_be_bytes(*segment.first_chunk()?));
                (segment.len() == 2).then_some(())
            }
            0xe0 => {
                self.jfif |= segment.starts_with(b"JFIF\0");
                Some(())
            }
            0xe1 if segment.starts_with(b"Exif\0\0") => {
                let orientation = Orientation::from_exif_chunk(&segment[6..]);
                let upright = matches!(orientation, None | Some(Orientation::NoTransforms));
                (upright && !std::mem::replace(&mut self.exif, true)).then_some(())
            }
            0xee if segment.starts_with(b"Adobe") => {
                self.adobe = Some(*segment.get(11)?);
                Some(())
            }
            0xe1..=0xef | 0xfe => Some(()),
            _ => None,
        }
    }

    fn frame(&mut self, segment: &[u8]) -> Option<()> {
        let (&[8, h1, h0, w1, w0, count], components) = segment.split_first_chunk()? else { return None };
        let (height, width) = (u16::from_be_bytes([h1, h0]), u16::from_be_bytes([w1, w0]));
        let (components, []) = components.as_chunks::<3>() else { return None };
        let declared =
            |&[id, sampling, table]: &[u8; 3]| Declared { id, sampling: (sampling >> 4, sampling & 0xf), table };
        let declared: Vec<Declared> = components.iter().map(declared).collect();
        let sound = width > 0
            && height > 0
            && usize::from(count) == declared.len()
            && u64::from(width) * u64::from(height) <= super::super::MAX_PIXELS;
        let first = self.frame.replace((usize::from(width), usize::from(height), declared)).is_none();
        (sound && first).then_some(())
    }

    fn huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&class_and_number, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let (values, rest) = rest.split_at_checked(counts.iter().map(|&count| usize::from(count)).sum())?;
            let (class, number) = (usize::from(class_and_number >> 4), usize::from(class_and_number & 0xf));
            *self.codes.get_mut(class)?.get_mut(number)? = Some((*counts, values.to_vec()));
            segment = rest;
        }
        Some(())
    }

    fn quantization(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&precision_and_number, rest)) = segment.split_first() {
            let slot = self.quant.get_mut(usize::from(precision_and_number & 0xf))?;
            segment = match precision_and_number >> 4 {
                0 => {
                    let (values, rest) = rest.split_first_chunk::<64>()?;
                    *slot = Some(values.map(u16::from));
                    rest
                }
                1 => {
                    let (values, rest) = rest.split_first_chunk::<128>()?;
                    let value = |i: usize| u16::from_be_bytes([values[2 * i], values[2 * i + 1]]);
                    *slot = Some(std::array::from_fn(value));
                    rest
                }
                _ => return None,
            };
        }
        Some(())
    }

    /// The scan's own header: which tables each component uses.
    fn scan(&self, segment: &[u8], data: usize) -> Option<Header> {
        let (width, height, declared) = self.frame.as_ref()?;
        let (&count, rest) = segment.split_first()?;
        let (selectors, &[0, 63, 0]) = rest.split_last_chunk::<3>()? else { return None };
        let (selectors, []) = selectors.as_chunks::<2>() else { return None };
        if usize::from(count) != declared.len() || selectors.len() != declared.len() {
            return None;
        }
        let sampling = self.sampling(declared)?;
        let mut built: Vec<(usize, usize, std::sync::Arc<Codes>)> = Vec::new();
        let mut codes = |class: usize, number: usize| {
            let known = built.iter().find(|known| (known.0, known.1) == (class, number));
            if let Some((_, _, codes)) = known {
                return Some(codes.clone());
            }
            let (counts, values) = self.codes[class].get(number)?.as_ref()?;
            let codes = std::sync::Arc::new(Codes::new(counts, values, class == 0)?);
            built.push((class, number, codes.clone()));
            Some(codes)
        };
        let component = |(declared, &[id, tables]): (&Declared, &[u8; 2])| {
            let values = (*self.quant.get(usize::from(declared.table))?)?;
            let mut quant = [(0, 0); 64];
            for ((quant, value), place) in quant.iter_mut().zip(values).zip(ZIGZAG) {
                *quant = (i16::try_from(value).ok()?, place);
            }
            (id == declared.id).then_some(())?;
            Some(Component { quant, dc: codes(0, usize::from(tables >> 4))?, ac: codes(1, usize::from(tables & 0xf))? })
        };
        let components = declared.iter().zip(selectors).map(component).collect::<Option<Vec<_>>>()?;
        let restart_interval = self.restart_interval;
        Some(Header { width: *width, height: *height, components, sampling, restart_interval, data })
    }

    /// Luma samples per chroma sample, if the colors are of a kind that is taken here.
    fn sampling(&self, declared: &[Declared]) -> Option<(usize, usize)> {
        match declared {
            // A scan of one component is in blocks, whatever it declares.
            [_] => Some((1, 1)),
            [luma, cb, cr] => {
                let ids = [luma.id, cb.id, cr.id];
                let ycc = match self.adobe {
                    Some(transform) => transform == 1,
                    None => self.jfif || ids == [1, 2, 3],
                };
                let whole = |of: u8, by: u8| [1, 2].into_iter().find(|&factor| of == factor * by);
                let factors = (whole(luma.sampling.0, cb.sampling.0)?, whole(luma.sampling.1, cb.sampling.1)?);
                // Factors other than these mean several chroma blocks in an MCU.
                let usual = ycc && cb.sampling == (1, 1) && cr.sampling == (1, 1);
                usual.then_some((usize::from(factors.0), usize::from(factors.1)))
            }
            _ => None,
        }
    }
}
