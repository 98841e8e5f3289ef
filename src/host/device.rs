//! `--device`: what was asked for, and what this machine has.

use std::str::FromStr;

use tch::{Cuda, Device};

use super::errors::Failure;
use crate::libtorch;

/// A device as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the CPU.
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", index)) if index.parse::<usize>().is_ok() => Ok(Self::Cuda(index.parse().unwrap_or(0))),
            _ => Err("expected auto, cpu, cuda or cuda:N".into()),
        }
    }
}

impl DeviceChoice {
    /// The device, with CUDA loaded if it is needed, and batches made ready to be sent there.
    ///
    /// # Errors
    /// If CUDA is asked for and this machine has none, or not so many devices.
    pub fn resolve(self) -> Result<Device, Failure> {
        let device = self.find()?;
        libtorch::buffer::pin_buffers(matches!(device, Device::Cuda(_)));
        Ok(device)
    }

    fn find(self) -> Result<Device, Failure> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => {
                Ok(if libtorch::load_cuda().is_ok() && Cuda::is_available() { Device::Cuda(0) } else { Device::Cpu })
            }
            Self::Cuda(index) => {
                let refuse = |why: String| {
                    Failure::machine(format!("--device cuda:{index}: {why}")).with_hint(
                        "--device auto takes the CPU where there is no CUDA; `CUDA=1 make setup` installs it",
                    )
                };
                libtorch::load_cuda().map_err(|err| refuse(format!("libtorch's CUDA part cannot be loaded: {err}")))?;
                if !Cuda::is_available() {
                    return Err(refuse("no CUDA device or driver was found".into()));
                }
                let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
                if index >= count {
                    return Err(refuse(format!(
                        "this machine has {count} CUDA device{}",
                        if count == 1 { "" } else { "s" }
                    )));
                }
                Ok(Device::Cuda(index))
            }
        }
    }
}
