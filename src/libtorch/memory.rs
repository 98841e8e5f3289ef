//! Memory in use: of a CUDA device by libtorch's account, of this process by the system's. And TF32, which is set beside it.

#![allow(unsafe_code)] // The shim's functions are C.

use std::ffi::c_char;
use std::fs::read_to_string;

use tch::Device;

use super::TorchResult;
use super::shim::call;

unsafe extern "C" {
    fn dbp_device_memory(index: i32, figures: *mut u64, error: *mut c_char, capacity: usize) -> i32;
    fn dbp_device_room(index: i32, figures: *mut u64, error: *mut c_char, capacity: usize) -> i32;
    fn dbp_reset_device_peak(index: i32, error: *mut c_char, capacity: usize) -> i32;
    fn dbp_allow_tf32(allowed: i32, error: *mut c_char, capacity: usize) -> i32;
    fn dbp_tf32_allowed(allowed: *mut i32, error: *mut c_char, capacity: usize) -> i32;
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// On CUDA: in tensors. On the CPU: resident, of the whole process.
    pub now: u64,
    /// The most there was: on CUDA since [`reset_peak`], on the CPU since the process began.
    pub peak: u64,
    /// On CUDA: what libtorch holds of the device, to give out again.
    pub held: u64,
}

/// What this process uses of the device's memory; `None` where nobody says.
pub fn used(device: Device) -> Option<Used> {
    let Device::Cuda(index) = device else { return of_process() };
    let mut figures = [0_u64; 4];
    let index = i32::try_from(index).ok()?;
    // SAFETY: the shim writes the four figures and, within the buffer, its message.
    call(|error, capacity| unsafe { dbp_device_memory(index, figures.as_mut_ptr(), error, capacity) }).ok()?;
    let [now, peak, held, _] = figures;
    Some(Used { now, peak, held })
}

fn of_process() -> Option<Used> {
    let status = read_to_string("/proc/self/status").ok()?;
    let now = kibibytes(&status, "VmRSS:")?;
    Some(Used { now, peak: kibibytes(&status, "VmHWM:").unwrap_or(now).max(now), held: now })
}

/// The value of a line like `VmRSS:  24000000 kB`, in bytes.
pub fn kibibytes(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Free and total bytes of CUDA's device `index`, whoever uses the rest; `None` where CUDA is not in use.
pub fn device_room(index: usize) -> Option<(u64, u64)> {
    let mut figures = [0_u64; 2];
    let index = i32::try_from(index).ok()?;
    // SAFETY: the shim writes the two figures and, within the buffer, its message.
    call(|error, capacity| unsafe { dbp_device_room(index, figures.as_mut_ptr(), error, capacity) }).ok()?;
    Some((figures[0], figures[1]))
}

/// Counts the peak of a CUDA device from now. That of a process cannot be reset, and stays.
pub fn reset_peak(device: Device) {
    if let Device::Cuda(index) = device
        && let Ok(index) = i32::try_from(index)
    {
        // Before its first tensor the device has no peak.
        // SAFETY: the shim takes a number and writes its message within the buffer.
        let _ = call(|error, capacity| unsafe { dbp_reset_device_peak(index, error, capacity) });
    }
}

/// Whether products and convolutions of float32 may round their inputs to TF32's 10 bits of mantissa, on CUDA alone.
pub fn allow_tf32(allowed: bool) -> TorchResult<()> {
    // SAFETY: the shim takes a number and writes its message within the buffer.
    call(|error, capacity| unsafe { dbp_allow_tf32(i32::from(allowed), error, capacity) })
}

/// Whether products may, and whether convolutions may.
pub fn tf32_allowed() -> TorchResult<(bool, bool)> {
    let mut allowed = 0;
    // SAFETY: the shim writes one number and, within the buffer, its message.
    call(|error, capacity| unsafe { dbp_tf32_allowed(&raw mut allowed, error, capacity) })?;
    Ok((allowed & 1 != 0, allowed & 2 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_memory() {
        if !std::path::Path::new("/proc/self/status").exists() {
            return assert_eq!(used(Device::Cpu), None);
        }
        let ballast = tch::Tensor::ones([64 << 20], (tch::Kind::Uint8, Device::Cpu));
        let with = used(Device::Cpu).unwrap();
        drop(ballast);
        let after = used(Device::Cpu).unwrap();
        assert!(with.now >= 64 << 20 && with.peak >= with.now, "{with:?}");
        const ROUNDING: u64 = 4 << 20; // The kernel counts per processor.
        assert!(after.peak + ROUNDING >= with.peak, "the peak stays: {with:?} {after:?}");
    }

    #[test]
    fn a_device_that_is_not_there_says_nothing() {
        if !std::path::Path::new("/dev/nvidiactl").exists() {
            assert_eq!((used(Device::Cuda(0)), device_room(0)), (None, None));
            reset_peak(Device::Cuda(0));
        }
        assert_eq!(used(Device::Cuda(usize::MAX)), None);
    }

    #[test]
    fn tf32_is_both_or_neither() {
        for allowed in [true, false] {
            allow_tf32(allowed).unwrap();
            assert_eq!(tf32_allowed().unwrap(), (allowed, allowed));
        }
    }
}
