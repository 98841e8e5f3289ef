//! NumPy's `.npy` files (format 1 to 3): `[H, W]`, `[H, W, C]` or `[C, H, W]` with up to 4 channels.
//!
//! Images are `uint8`, `uint16`, or floats in [0, 1]; masks may be any kind of integer or boolean. A shape such as `[3, 100, 3]` that
//! could be either is taken for `[H, W, C]`.

use super::DecodeError;
use super::raster::Raster;

const MAX_CHANNELS: u64 = 4;

/// The array as samples.
pub fn read(bytes: &[u8]) -> Result<Raster, DecodeError> {
    let Header { kind, shape, fortran, data } = Header::of(bytes)?;
    if fortran {
        return Err(DecodeError::Corrupt(
            "arrays in Fortran order are not read: save numpy.ascontiguousarray(x)".into(),
        ));
    }
    let (height, width, channels, planar) = match shape[..] {
        [h, w] => (h, w, 1, false),
        [h, w, c] if (1..=MAX_CHANNELS).contains(&c) => (h, w, c, false),
        [c, h, w] if (1..=MAX_CHANNELS).contains(&c) => (h, w, c, true),
        _ => {
            return Err(DecodeError::Corrupt(format!(
                "an array of the shape {shape:?}: expected [H, W], [H, W, C] or [C, H, W]"
            )));
        }
    };
    Raster::check_size(width, height)?;
    let (width, height, channels) = (width as usize, height as usize, channels as usize);
    let count = width * height * channels;
    let (samples, wide) = samples(kind, data, count)?;
    let plane = width * height;
    let samples = match planar && channels > 1 {
        true => (0..count).map(|i| samples[i % channels * plane + i / channels]).collect(),
        false => samples,
    };
    Ok(Raster { width, height, channels, samples, wide, alpha: channels == 4 })
}

/// `count` numbers, and whether they have 16 bits.
fn samples(kind: &str, data: &[u8], count: usize) -> Result<(Vec<u16>, bool), DecodeError> {
    let (order, kind) = kind.split_at_checked(1).unwrap_or_default();
    let size: usize = kind.get(1..).and_then(|size| size.parse().ok()).unwrap_or(0);
    if !["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "b1", "f4", "f8"].contains(&kind) {
        return Err(DecodeError::Corrupt(format!(
            "numbers of the kind {order}{kind}: expected integers, uint8 for images, or floats"
        )));
    }
    let data = data.get(..count * size).ok_or(DecodeError::Truncated)?;
    // Big-endian bytes of one number.
    let number = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[8 - size..].copy_from_slice(bytes);
        if order != ">" {
            wide[8 - size..].reverse();
        }
        u64::from_be_bytes(wide)
    };
    let numbers = data.chunks_exact(size).map(number);
    if kind.starts_with('f') {
        let value = |bits: u64| if size == 4 { f64::from(f32::from_bits(bits as u32)) } else { f64::from_bits(bits) };
        let byte = |x: f64| {
            let fits = (0.0..=1.0).contains(&x);
            fits.then(|| (x * 255.0).round() as u16)
                .ok_or_else(|| DecodeError::Corrupt(format!("the value {x}: floats must lie in [0, 1]")))
        };
        return Ok((numbers.map(|bits| byte(value(bits))).collect::<Result<_, _>>()?, false));
    }
    // A negative number is larger than 65535 as it stands, or has its sign bit.
    let negative = |n: u64| kind.starts_with('i') && n >> (8 * size - 1) != 0;
    let small = |n: u64| {
        let value = u16::try_from(n).ok().filter(|_| !negative(n));
        value.ok_or_else(|| DecodeError::Corrupt("a number outside 0 to 65535".into()))
    };
    Ok((numbers.map(small).collect::<Result<_, _>>()?, kind == "u2"))
}

struct Header<'a> {
    /// NumPy's `descr`, such as `|u1` or `<f4`.
    kind: &'a str,
    shape: Vec<u64>,
    fortran: bool,
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (length, start): (usize, usize) = match bytes.get(6..12).ok_or(DecodeError::Truncated)? {
            [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
            [2 | 3, _, a, b, c, d] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
            _ => return Err(DecodeError::Corrupt("an NPY file of an unknown version".into())),
        };
        let end = start.checked_add(length).filter(|&end| end <= bytes.len()).ok_or(DecodeError::Truncated)?;
        let broken = || DecodeError::Corrupt("the NPY header is damaged".into());
        let text = std::str::from_utf8(&bytes[start..end]).map_err(|_| broken())?;
        let after =
            |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' '])).ok_or_else(broken);
        let kind = after("'descr'")?.strip_prefix('\'').and_then(|rest| rest.split('\'').next()).ok_or_else(broken)?;
        let fortran = after("'fortran_order'")?.starts_with("True");
        let shape = after("'shape'")?.strip_prefix('(').and_then(|rest| rest.split(')').next()).ok_or_else(broken)?;
        let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
        let shape = sides.map(|side| side.parse().map_err(|_| broken())).collect::<Result<_, _>>()?;
        Ok(Self { kind, shape, fortran, data: &bytes[end..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `numpy.save` writes it.
    fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn shapes_and_kinds() {
        let raster = read(&npy("|u1", "(2, 3)", &[0, 1, 2, 3, 4, 5])).unwrap();
        assert_eq!((raster.width, raster.height, raster.channels), (3, 2, 1));
        let planes = read(&npy("|u1", "(2, 1, 2)", &[1, 2, 3, 4])).unwrap();
        assert_eq!((planes.width, planes.height, planes.channels), (1, 2, 2)); // [H, W, C] first.
        let planes = read(&npy("|u1", "(2, 1, 5)", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9])).unwrap();
        assert_eq!((planes.width, planes.channels, &planes.samples[..4]), (5, 2, &[0, 5, 1, 6][..]));
        let wide = read(&npy("<u2", "(1, 2)", &[0x34, 0x12, 0xff, 0xff])).unwrap();
        assert_eq!(wide.into_image(false).unwrap().pixels, [0x12, 0xff]);
        let float: Vec<u8> = [0.0_f32, 0.5, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(read(&npy("<f4", "(1, 3)", &float)).unwrap().into_image(false).unwrap().pixels, [0, 128, 255]);
        let labels: Vec<u8> = [3_i64, 255].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(read(&npy("<i8", "(1, 2)", &labels)).unwrap().samples, [3, 255]);
    }

    #[test]
    fn what_is_wrong_is_an_error() {
        let minus = (-1_i32).to_le_bytes();
        let wrong = [
            npy("|u1", "(2, 3)", &[0; 5]),
            npy("|u1", "(2, 3, 7, 1)", &[0; 42]),
            npy("<f4", "(1, 1)", &2.0_f32.to_le_bytes()),
            npy("<i4", "(1, 1)", &minus),
            npy("|O", "(1, 1)", &minus),
            npy("|u1", "(0, 1)", &[]),
            npy("|u1", "(99999999, 99999999)", &[]),
            npy("|u1", "(2, 3)", &[0; 6])[..40].to_vec(),
            b"\x93NUMPY".to_vec(),
        ];
        for bytes in wrong {
            assert!(read(&bytes).is_err());
        }
    }
}
