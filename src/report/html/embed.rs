//! Pictures inside the page: PNG files as data URIs, up to a limit that the page states where it is met.

use std::fs;
use std::path::Path;

/// Pictures that one page holds, and their bytes together before encoding.
const MAX_PICTURES: usize = 40;
const MAX_BYTES: usize = 12 << 20;

/// What is still to spare on a page.
pub struct Budget {
    pictures: usize,
    bytes: usize,
}

/// A picture for an `img`.
pub struct Embedded {
    pub uri: String,
    pub width: u32,
    pub height: u32,
}

impl Budget {
    pub fn new() -> Self {
        Self { pictures: MAX_PICTURES, bytes: MAX_BYTES }
    }

    /// The PNG file at `path` as it is; else why it is not on the page.
    pub fn embed(&mut self, path: &Path) -> Result<Embedded, String> {
        if self.pictures == 0 {
            return Err(format!("left out: the page holds {MAX_PICTURES} pictures at most"));
        }
        let bytes = fs::read(path).map_err(|err| format!("could not be read: {err}"))?;
        let (width, height) = png_size(&bytes).ok_or("is not a PNG file")?;
        if bytes.len() > self.bytes {
            return Err(format!("left out: the page holds {} MiB of pictures at most", MAX_BYTES >> 20));
        }
        self.pictures -= 1;
        self.bytes -= bytes.len();
        Ok(Embedded { uri: format!("data:image/png;base64,{}", base64(&bytes)), width, height })
    }
}

/// Width and height out of the first chunk (PNG specification, 11.2.1).
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    let header = rest.get(..16).filter(|header| &header[4..8] == b"IHDR")?;
    let number = |at: usize| header[at..at + 4].iter().fold(0, |all, byte| (all << 8) | u32::from(*byte));
    Some((number(8), number(12))).filter(|(width, height)| *width > 0 && *height > 0)
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |all, byte| (all << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) & 63;
            out.push(if place <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // RFC 4648, section 10.
    fn base64_is_that_of_the_standard() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn only_whole_headers_have_a_size() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x04\0\0\x01\x02\x08\x02\0\0\0".to_vec();
        assert_eq!(png_size(&png), Some((4, 258)));
        png.truncate(22);
        assert_eq!(png_size(&png), None);
        assert_eq!(png_size(b"GIF89a"), None);
    }
}
