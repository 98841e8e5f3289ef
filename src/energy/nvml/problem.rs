//! What NVML's errors mean to people, and what would mend them.

use std::fmt;
use std::path::Path;

use nvml_wrapper::error::NvmlError;

/// How the sentence begins where no NVIDIA driver is installed: on most machines nothing is wrong then.
pub const NO_DRIVER: &str = "no NVIDIA driver here";

const UTILITY: &str = "in a container, NVIDIA_DRIVER_CAPABILITIES must include utility";

/// Something that cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub fix: Option<&'static str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.fix.map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}

impl Problem {
    /// `what` is the thing, `err` why it could not be had.
    pub(super) fn new(what: &str, err: &NvmlError) -> Self {
        Self { what: format!("{what}: {}", reason(err)), fix: fix(err) }
    }

    /// Why the library could not be opened or initialized.
    pub(super) fn of_library(library: Option<&Path>, err: &NvmlError) -> Self {
        let NvmlError::LibloadingError(loading) = err else { return Self::new("NVML does not start", err) };
        let text = loading.to_string();
        // The linker says the same of a library that this one needs; then the text begins with that one's name.
        let name = library.map_or("libnvidia-ml.so.1".into(), Path::to_string_lossy);
        let missing = text.starts_with(&*name) && text.contains("No such file");
        match library {
            _ if !missing && cfg!(target_os = "linux") => {
                Self { what: format!("NVML cannot be loaded: {text}"), fix: Some("install the NVIDIA driver anew") }
            }
            Some(path) => Self { what: format!("{NO_DRIVER}: {} does not exist", path.display()), fix: None },
            None => {
                let there = |path: &str| Path::new(path).exists();
                Self::without_library(there("/dev/nvidiactl"), there("/proc/driver/nvidia/version"))
            }
        }
    }

    /// There is no library: whose fault it is shows in what else is there, the driver's device and its kernel module.
    fn without_library(device: bool, module: bool) -> Self {
        let (what, fix) = match (device, module) {
            (true, _) => ("the NVIDIA driver is here, but its library libnvidia-ml.so.1 is not", Some(UTILITY)),
            (false, true) => (
                "no NVIDIA driver here, though this machine's kernel has one",
                Some("a container sees GPUs if it is started with --gpus all"),
            ),
            (false, false) => (NO_DRIVER, None),
        };
        Self { what: what.into(), fix }
    }
}

pub(super) fn reason(err: &NvmlError) -> String {
    let text = match err {
        NvmlError::GpuLost => "the GPU is lost: it fell off the bus or its driver gave it up",
        NvmlError::ResetRequired => "the GPU hangs until it is reset",
        NvmlError::Uninitialized => "the driver's library was shut down, or its driver is gone",
        NvmlError::DriverNotLoaded => "the NVIDIA driver is not loaded",
        NvmlError::LibRmVersionMismatch => "the driver in the kernel and its library are of different versions",
        NvmlError::NotSupported => "the GPU does not offer it",
        NvmlError::NoPermission => "permission denied",
        NvmlError::OperatingSystem => "the operating system keeps the GPU from us",
        NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => "the driver is too old to offer it",
        NvmlError::Timeout => "the driver did not answer in time",
        NvmlError::Unknown => "the driver failed and does not say why",
        NvmlError::UnexpectedVariant(code) => return format!("the driver failed with code {code}"),
        other => return other.to_string(),
    };
    text.to_owned()
}

pub(super) fn fix(err: &NvmlError) -> Option<&'static str> {
    match err {
        NvmlError::NoPermission | NvmlError::OperatingSystem => Some(UTILITY),
        NvmlError::LibRmVersionMismatch => Some("restart the machine: the driver was updated while it ran"),
        NvmlError::DriverNotLoaded => Some("load it (`modprobe nvidia`) or install it anew"),
        NvmlError::GpuLost | NvmlError::ResetRequired => Some("reset the GPU (`nvidia-smi -r`) or restart the machine"),
        NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => Some("update the NVIDIA driver"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_explained_by_what_else_is_there() {
        assert_eq!(Problem::without_library(false, false).to_string(), NO_DRIVER);
        assert!(Problem::without_library(true, true).to_string().ends_with("must include utility"));
        assert!(Problem::without_library(false, true).to_string().ends_with("--gpus all"));
    }
}
