//! TensorBoard event files: scalars and pictures over steps, appended as a run goes.
//!
//! A file is a sequence of TFRecords (`tensorflow/core/lib/io/record_writer.h`), each holding one `Event` message
//! (`tensorflow/core/util/event.proto`, `framework/summary.proto`). Only the handful of fields that we write is
//! encoded, by hand. Scalars take the older `simple_value`; TensorBoard converts it when it reads.
//!
//! Record: length (u64, little-endian), masked CRC of the length (u32), data, masked CRC of the data (u32).

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::TrainResult;
use super::error::At;

/// Largest record that is believed when reading: a longer one is a torn or foreign file.
const MAX_RECORD: u64 = 1 << 30;

/// Appends events to one file. Nothing is certain to be on disk before [`EventWriter::flush`].
#[derive(Debug)]
pub struct EventWriter {
    file: BufWriter<File>,
    path: PathBuf,
}

impl EventWriter {
    /// Starts `events.out.tfevents.SECONDS.SUFFIX` in `dir`, which is made if it is missing; an existing file of that
    /// name is continued. `wall_time_s` is seconds since 1970.
    pub fn create(dir: &Path, wall_time_s: f64, suffix: &str) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("events.out.tfevents.{:010}.{suffix}", wall_time_s as u64));
        let mut writer = Self::append(&path)?;
        if fs::metadata(&path)?.len() == 0 {
            let mut event = event(wall_time_s, 0);
            put_bytes(&mut event, 3, b"brain.Event:2");
            writer.record(&event)?;
            writer.flush()?;
        }
        Ok(writer)
    }

    /// Goes on with an existing file, after [`truncate_after`] when a run is resumed.
    pub fn append(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { file: BufWriter::new(file), path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn scalar(&mut self, tag: &str, value: f32, step: u64, wall_time_s: f64) -> io::Result<()> {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, tag.as_bytes());
        put_key(&mut entry, 2, WireType::Fixed32);
        entry.extend(value.to_le_bytes());
        self.summary(&entry, step, wall_time_s)
    }

    /// A picture that is already encoded as PNG; `channels` is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA).
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub fn image(
        &mut self,
        tag: &str,
        png: &[u8],
        width: u32,
        height: u32,
        channels: u32,
        step: u64,
        wall_time_s: f64,
    ) -> io::Result<()> {
        let mut image = Vec::new();
        put_varint(&mut image, 1, u64::from(height));
        put_varint(&mut image, 2, u64::from(width));
        put_varint(&mut image, 3, u64::from(channels));
        put_bytes(&mut image, 4, png);
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, tag.as_bytes());
        put_bytes(&mut entry, 4, &image);
        self.summary(&entry, step, wall_time_s)
    }

    /// Hands everything written so far to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn summary(&mut self, entry: &[u8], step: u64, wall_time_s: f64) -> io::Result<()> {
        let mut summary = Vec::new();
        put_bytes(&mut summary, 1, entry);
        let mut event = event(wall_time_s, step);
        put_bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_crc(&length).to_le_bytes())?;
        self.file.write_all(data)?;
        self.file.write_all(&masked_crc(data).to_le_bytes())
    }
}

/// Keeps the records of an event file whose step is at most `step`; what follows a torn or damaged record is dropped.
///
/// A file that needs no change is not touched. Otherwise the kept records are written aside and renamed over it, so
/// that a crash leaves one or the other. Answers how many records were dropped; damaged bytes count as one.
pub fn truncate_after(path: &Path, step: u64) -> io::Result<usize> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let mut kept = Vec::new();
    let mut dropped = 0;
    let mut rest = bytes.as_slice();
    while let Some((data, after)) = split_record(rest) {
        if step_of(data).is_some_and(|at| at <= step) {
            kept.extend_from_slice(&rest[..rest.len() - after.len()]);
        } else {
            dropped += 1;
        }
        rest = after;
    }
    dropped += usize::from(!rest.is_empty());
    if dropped > 0 {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".part");
        let mut file = File::create(&aside)?;
        file.write_all(&kept)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
    }
    Ok(dropped)
}

/// The data of the first record and the bytes after it; `None` at the end and where a record is torn or damaged.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_crc, rest) = rest.split_first_chunk::<4>()?;
    let count = u64::from_le_bytes(*length);
    if masked_crc(length) != u32::from_le_bytes(*length_crc) || count > MAX_RECORD {
        return None;
    }
    let (data, rest) = rest.split_at_checked(count as usize)?;
    let (data_crc, rest) = rest.split_first_chunk::<4>()?;
    (masked_crc(data) == u32::from_le_bytes(*data_crc)).then_some((data, rest))
}

/// An event's step: field 2, and 0 where it is left out. `None` if the message cannot be read.
fn step_of(event: &[u8]) -> Option<u64> {
    let mut rest = event;
    let mut step = 0;
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        match key & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                step = if key >> 3 == 2 { value } else { step };
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = take_varint(&mut rest)?;
                rest = rest.get(usize::try_from(length).ok()?..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(step)
}

/// CRC-32C, rotated and offset so that the CRC of data that holds CRCs stays sound.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

/// An `Event` with its time and step.
fn event(wall_time_s: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    put_key(&mut event, 1, WireType::Fixed64);
    event.extend(wall_time_s.to_le_bytes());
    put_varint(&mut event, 2, step);
    event
}

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: WireType) {
    put_raw_varint(out, field << 3 | wire_type as u64);
}

fn put_varint(out: &mut Vec<u8>, field: u64, value: u64) {
    put_key(out, field, WireType::Varint);
    put_raw_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, WireType::Bytes);
    put_raw_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_raw_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The run's event file, cut back to `step`; a new one if there is none.
pub fn open(folder: &Path, step: u64) -> TrainResult<EventWriter> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).at(folder)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    match files.into_iter().next() {
        Some(path) => {
            truncate_after(&path, step).at(&path)?;
            EventWriter::append(&path).at(&path)
        }
        None => EventWriter::create(folder, now(), "dbp-host").at(folder),
    }
}

/// Seconds since 1970, as events are stamped with.
pub fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of a file's records, whose CRCs must all be right.
    fn steps(path: &Path) -> Vec<u64> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut steps = Vec::new();
        while let Some((data, after)) = split_record(rest) {
            steps.push(step_of(data).unwrap());
            rest = after;
        }
        assert!(rest.is_empty(), "{} bytes cannot be read", rest.len());
        steps
    }

    fn write(dir: &Path, up_to: u64) -> PathBuf {
        let mut writer = EventWriter::create(dir, 1.7e9, "test").unwrap();
        for step in 1..=up_to {
            writer.scalar("train/loss", 1.0 / step as f32, step * 100, 1.7e9 + step as f64).unwrap();
        }
        writer.flush().unwrap();
        writer.path().to_owned()
    }

    /// `crc32c.h` of TensorFlow gives the mask; the CRC of 32 zero bytes is RFC 3720's, B.4.
    #[test]
    fn crc_matches_published_values() {
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        // The header's record length, 24, as every TensorBoard file with "brain.Event:2" at step 0 begins.
        let length = 24u64.to_le_bytes();
        assert_eq!(masked_crc(&length).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    /// Expected bytes: `Event(wall_time=2, step=300, summary=[Value(tag="a", simple_value=0.5)])` by `event_pb2`.
    #[test]
    fn a_scalar_is_the_message_tensorboard_expects() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 1.0, "x").unwrap();
        writer.scalar("a", 0.5, 300, 2.0).unwrap();
        writer.flush().unwrap();
        assert!(writer.path().ends_with("events.out.tfevents.0000000001.x"));
        let bytes = fs::read(writer.path()).unwrap();
        let (version, rest) = split_record(&bytes).unwrap();
        assert_eq!(&version[version.len() - 15..], b"\x1a\x0dbrain.Event:2");
        let (event, rest) = split_record(rest).unwrap();
        let expected = b"\x09\0\0\0\0\0\0\0\x40\x10\xac\x02\x2a\x0a\x0a\x08\x0a\x01a\x15\0\0\0\x3f";
        assert_eq!(event, expected);
        assert!(rest.is_empty());
    }

    #[test]
    fn an_image_carries_its_size_and_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 1.0, "x").unwrap();
        let png = vec![7; 1000];
        writer.image("masked", &png, 64, 32, 3, 5, 2.0).unwrap();
        writer.flush().unwrap();
        let bytes = fs::read(writer.path()).unwrap();
        let (_, rest) = split_record(&bytes).unwrap();
        let (event, _) = split_record(rest).unwrap();
        let mut tail = b"\x08\x20\x10\x40\x18\x03\x22\xe8\x07".to_vec();
        tail.extend(&png);
        assert!(event.ends_with(&tail));
        assert_eq!(steps(writer.path()), [0, 5]);
    }

    #[test]
    fn truncating_keeps_records_up_to_the_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), 5);
        assert_eq!(truncate_after(&path, 300).unwrap(), 2);
        assert_eq!(steps(&path), [0, 100, 200, 300]);
        assert_eq!(truncate_after(&path, 300).unwrap(), 0);
        let mut writer = EventWriter::append(&path).unwrap();
        writer.scalar("train/loss", 0.1, 400, 1.8e9).unwrap();
        writer.flush().unwrap();
        assert_eq!(steps(&path), [0, 100, 200, 300, 400]);
    }

    #[test]
    fn a_torn_or_damaged_record_ends_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), 3);
        let whole = fs::read(&path).unwrap();
        let last = {
            let (_, rest) = split_record(&whole).unwrap();
            rest.len() / 3
        };
        for cut in 1..last {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(truncate_after(&path, u64::MAX).unwrap(), 1, "cut {cut}");
            assert_eq!(steps(&path), [0, 100, 200]);
        }
        let mut damaged = whole.clone();
        let middle = damaged.len() - last - 6;
        damaged[middle] ^= 1;
        fs::write(&path, &damaged).unwrap();
        truncate_after(&path, u64::MAX).unwrap();
        assert_eq!(steps(&path), [0, 100]);
    }

    #[test]
    fn varints_of_all_lengths_survive() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(step_of(&event(0.0, value)), Some(value));
        }
        assert_eq!(step_of(&[0x10, 0x80]), None);
        assert_eq!(step_of(&[0x0b]), None);
    }
}
