//! Memory that libtorch was refused, in words: what was asked for, what there is, and which settings need less.

use std::cell::Cell;

use tch::Device;

use super::errors::Failure;
use super::memory;
use super::preflight::size;
use crate::libtorch;

/// The micro-batch that training is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    pub device: Device,
    pub images: i64,
    /// How many make a step.
    pub of_step: u64,
}

thread_local! {
    static PASS: Cell<Option<Pass>> = const { Cell::new(None) };
}

/// Remembers what is being computed; `None` is nothing in particular.
pub fn set_pass(pass: Option<Pass>) {
    PASS.set(pass);
}

/// What libtorch says of refused memory, as an error of the machine; `None` if `text` says something else.
pub fn reworded(text: &str) -> Option<Failure> {
    let of_cpu = text.contains("DefaultCPUAllocator");
    let refused = ["out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED"];
    if !refused.iter().any(|part| text.contains(part)) {
        return None;
    }
    let pass = PASS.get();
    let (whose, room, held) = match device_of(text, pass).filter(|_| !of_cpu) {
        Some(index) => {
            let used = libtorch::memory::used(Device::Cuda(index));
            ("the GPU", libtorch::memory::device_room(index), used.map(|used| used.held))
        }
        None if of_cpu => {
            let machine = memory::Memory::read();
            ("the machine", machine.as_ref().map(|all| (all.free, all.total)), machine.map(|all| all.own))
        }
        None => ("the GPU", None, None),
    };
    Some(failure(whose, asked_for(text), room, held, pass))
}

/// `room` is what is free and what there is in all.
fn failure(
    whose: &str,
    asked: Option<u64>,
    room: Option<(u64, u64)>,
    held: Option<u64>,
    pass: Option<Pass>,
) -> Failure {
    let mut message = format!("{whose} is out of memory");
    let mut parts = Vec::new();
    parts.extend(asked.map(|asked| format!("{} were asked for at once", size(asked))));
    parts.extend(room.map(|(free, total)| format!("{} of {} are free", size(free), size(total))));
    parts.extend(held.map(|held| format!("this process holds {}", size(held))));
    if !parts.is_empty() {
        message = format!("{message}: {}", parts.join(", "));
    }
    let Some(Pass { images, of_step, .. }) = pass else {
        let hint = "a smaller model, image or batch needs less; so does precision: \"bf16\" in a recipe";
        return Failure::machine(message).with_hint(hint);
    };
    let passes = if of_step == 1 { "as many as a step".to_owned() } else { format!("a step {of_step} times as many") };
    message.push_str(&format!("; a pass takes {images} images, {passes}"));
    let smaller = match images {
        ..=1 => String::new(),
        _ => format!("micro_batch: {} (gradients accumulate, the step stays the same), ", (images / 2).max(1)),
    };
    let hint = format!("in the recipe, {smaller}activation_checkpointing: true or precision: \"bf16\" needs less");
    Failure::machine(message).with_hint(hint)
}

/// The device that the message names, else the one that training is on.
fn device_of(text: &str, pass: Option<Pass>) -> Option<usize> {
    let named = text.split_once("GPU ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    named.or(match pass?.device {
        Device::Cuda(index) => Some(index),
        _ => None,
    })
}

/// `you tried to allocate 4000 bytes`, `Tried to allocate 20.00 GiB`.
fn asked_for(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("ried to allocate ")?;
    let mut words = rest.split_whitespace();
    let number: f64 = words.next()?.parse().ok()?;
    let unit: u64 = match words.next()?.trim_end_matches(['.', ',']) {
        "bytes" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    Some((number * unit as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
        allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)";
    const CUDA: &str = "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 15.06 \
        GiB is free. Including non-PyTorch memory, this process has 64.03 GiB memory in use. Of the allocated memory 60.00 GiB \
        is allocated by PyTorch, and 1.20 GiB is reserved by PyTorch but unallocated.";

    #[test]
    fn what_was_asked_for_is_read_off() {
        assert_eq!(asked_for(CPU), Some(4_000_000_000_000));
        assert_eq!(asked_for(CUDA), Some(41 << 29));
        assert_eq!((asked_for("out of memory"), asked_for("Tried to allocate much")), (None, None));
        let pass = Some(Pass { device: Device::Cuda(3), images: 8, of_step: 1 });
        assert_eq!((device_of(CUDA, pass), device_of("CUDA error: out of memory", pass)), (Some(0), Some(3)));
        assert_eq!(reworded("the sizes do not match"), None);
    }

    #[test]
    fn errors_have_the_numbers_and_what_would_help() {
        set_pass(None);
        let err = reworded(CPU).unwrap();
        assert_eq!(err.kind.exit_code(), 4);
        let expected = "the machine is out of memory: 4000.0 GB were asked for at once, ";
        assert!(err.message.starts_with(expected) && err.message.contains("this process holds "), "{err}");
        let pass = Pass { device: Device::Cuda(0), images: 64, of_step: 4 };
        let err = failure("the GPU", asked_for(CUDA), Some((15 << 30, 79 << 30)), Some(64 << 30), Some(pass));
        let expected = "the GPU is out of memory: 22.0 GB were asked for at once, 16.1 GB of 84.8 GB are free, this process \
            holds 68.7 GB; a pass takes 64 images, a step 4 times as many";
        assert_eq!(err.message, expected);
        let expected = "in the recipe, micro_batch: 32 (gradients accumulate, the step stays the same), \
            activation_checkpointing: true or precision: \"bf16\" needs less";
        assert_eq!(err.hint.as_deref(), Some(expected));
        let one = failure("the GPU", None, None, None, Some(Pass { images: 1, of_step: 1, ..pass }));
        assert_eq!(one.message, "the GPU is out of memory; a pass takes 1 images, as many as a step");
        assert!(!one.hint.unwrap().contains("micro_batch"));
    }
}
