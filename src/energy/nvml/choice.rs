//! Which GPUs are meant: as `CUDA_VISIBLE_DEVICES` lists them, or as CUDA names them on the bus.

use nvml_wrapper::{Device, Nvml};

use super::problem::Problem;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuChoice {
    All,
    None,
    /// As CUDA names them on the bus: `0000:65:00.0`.
    Bus(Vec<String>),
    /// As `CUDA_VISIBLE_DEVICES` lists them: indices, or beginnings of UUIDs (`GPU-…`, `MIG-…`). An entry that fits no GPU
    /// ends the list, as it does for CUDA.
    ///
    /// Indices are NVML's here, the order of the bus. CUDA puts the fastest GPU first unless `CUDA_DEVICE_ORDER` is
    /// `PCI_BUS_ID`: where GPUs differ, `Bus` is the sure way.
    Listed(Vec<String>),
}

/// What a value of `CUDA_VISIBLE_DEVICES` chooses; `None` is a variable that is not set.
pub fn visible_from_env(value: Option<&str>) -> GpuChoice {
    let Some(value) = value else { return GpuChoice::All };
    let kind = ["GPU-", "MIG-"].into_iter().find(|kind| value.trim_start().starts_with(kind));
    let mut entries: Vec<String> = Vec::new();
    for entry in value.split(',').map(str::trim) {
        let entry = match kind {
            Some(kind) => Some(entry.to_owned()).filter(|entry| entry.starts_with(kind)),
            None => leading_number(entry).map(|index| index.to_string()),
        };
        let Some(entry) = entry else { break };
        if entries.contains(&entry) {
            return GpuChoice::None; // CUDA sees no device at all then.
        }
        entries.push(entry);
    }
    if entries.is_empty() { GpuChoice::None } else { GpuChoice::Listed(entries) }
}

/// As C's `strtol` reads it: what follows the digits does not count.
fn leading_number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

type Found = (u32, Device<'static>);

/// The GPUs that are meant, with their indices, each once; and those that are meant but cannot be had.
pub(super) fn choose(nvml: &'static Nvml, choice: &GpuChoice) -> (Vec<Found>, Vec<Problem>) {
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(err) => return (Vec::new(), vec![Problem::new("GPUs cannot be counted", &err)]),
    };
    let mut all = All((0..count).map(|index| open(nvml, index)).collect());
    let mut problems = Vec::new();
    let mut meant = Vec::new();
    match choice {
        GpuChoice::None => {}
        GpuChoice::All => meant.extend(0..all.0.len()),
        GpuChoice::Bus(ids) => {
            for id in ids {
                match all.at_bus(id) {
                    Some(index) => meant.push(index),
                    None => problems.push(all.unmatched(&format!("at {id} on the bus"))),
                }
            }
        }
        GpuChoice::Listed(entries) => {
            for entry in entries {
                match all.listed(nvml, entry) {
                    Some(index) => meant.push(index),
                    None => {
                        problems.push(all.unmatched(&format!("named {entry}, by --gpus or CUDA_VISIBLE_DEVICES")));
                        break;
                    }
                }
            }
        }
    }
    let mut found = Vec::new();
    for index in meant {
        // Two instances may lie on one GPU: it is taken once.
        let Some(opened) = all.0.get_mut(index).and_then(Option::take) else { continue };
        match opened {
            Ok(gpu) => found.push(gpu),
            Err(problem) => problems.push(problem),
        }
    }
    (found, problems)
}

fn open(nvml: &'static Nvml, index: u32) -> Option<Result<Found, Problem>> {
    let device = nvml.device_by_index(index);
    Some(
        device
            .map(|device| (index, device))
            .map_err(|err| Problem::new(&format!("GPU {index} cannot be opened"), &err)),
    )
}

/// Every GPU that NVML counts, by index, until it is taken.
struct All(Vec<Option<Result<Found, Problem>>>);

impl All {
    fn devices(&self) -> impl Iterator<Item = (usize, &Device<'static>)> {
        let opened = self.0.iter().enumerate();
        opened.filter_map(|(index, gpu)| Some((index, &gpu.as_ref()?.as_ref().ok()?.1)))
    }

    fn at_bus(&self, id: &str) -> Option<usize> {
        let place = bus_place(id)?;
        let is_there = |device: &Device| device.pci_info().is_ok_and(|pci| bus_place(&pci.bus_id) == Some(place));
        self.devices().find(|(_, device)| is_there(device)).map(|(index, _)| index)
    }

    fn listed(&self, nvml: &Nvml, entry: &str) -> Option<usize> {
        if let Ok(index) = entry.parse::<usize>() {
            return (index < self.0.len()).then_some(index);
        }
        if entry.starts_with("MIG-") { self.with_instance(nvml, entry) } else { self.with_uuid(entry) }
    }

    /// The one GPU whose UUID begins so.
    fn with_uuid(&self, prefix: &str) -> Option<usize> {
        let mut fitting = self.devices().filter(|(_, device)| device.uuid().is_ok_and(|uuid| uuid.starts_with(prefix)));
        let (index, _) = fitting.next()?;
        fitting.next().is_none().then_some(index)
    }

    /// The GPU on which the MIG instance lies whose UUID begins so.
    fn with_instance(&self, nvml: &Nvml, prefix: &str) -> Option<usize> {
        // Before driver 470: `MIG-GPU-<UUID>/<GPU instance>/<compute instance>`.
        if let Some(gpu) = prefix.strip_prefix("MIG-").filter(|rest| rest.starts_with("GPU-")) {
            return self.with_uuid(gpu.split('/').next().unwrap_or(gpu));
        }
        let parent = || nvml.device_by_uuid(prefix).ok()?.mig_parent_device().ok()?.uuid().ok();
        let has_it = |device: &Device| {
            let instances =
                (0..device.mig_device_count().unwrap_or(0)).filter_map(|k| device.mig_device_by_index(k).ok());
            instances.filter_map(|instance| instance.uuid().ok()).any(|uuid| uuid.starts_with(prefix))
        };
        let by_parent = parent().and_then(|uuid| self.with_uuid(&uuid));
        let by_search = || self.devices().find(|(_, device)| has_it(device)).map(|(index, _)| index);
        by_parent.or_else(by_search).or((self.0.len() == 1).then_some(0))
    }

    /// That none is the one meant; what could not be opened may have been it.
    fn unmatched(&self, meant: &str) -> Problem {
        let closed = self.0.iter().flatten().find_map(|gpu| gpu.as_ref().err());
        let why = match (closed, self.0.len()) {
            (Some(problem), _) => problem.what.clone(),
            (None, 1) => "there is 1 GPU".into(),
            (None, count) => format!("there are {count} GPUs"),
        };
        Problem { what: format!("NVML finds no GPU {meant}: {why}"), fix: closed.and_then(|problem| problem.fix) }
    }
}

/// Domain, bus and device. CUDA writes the domain with four digits, NVML with eight; GPUs have one function, 0.
fn bus_place(id: &str) -> Option<[u32; 3]> {
    let id = id.split('.').next()?;
    let mut parts = id.split(':').map(|part| u32::from_str_radix(part, 16));
    let place = [parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?];
    parts.next().is_none().then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_devices_are_read_as_cuda_reads_them() {
        let listed = |entries: &[&str]| GpuChoice::Listed(entries.iter().map(|entry| (*entry).to_owned()).collect());
        assert_eq!(visible_from_env(None), GpuChoice::All);
        for nothing in ["", " ", "-1", "NoDevFiles", "-1,0", "none", "1,1", "GPU-a,GPU-a"] {
            assert_eq!(visible_from_env(Some(nothing)), GpuChoice::None, "{nothing:?}");
        }
        assert_eq!(visible_from_env(Some("0")), listed(&["0"]));
        assert_eq!(visible_from_env(Some("2, 0")), listed(&["2", "0"]));
        assert_eq!(visible_from_env(Some("1,-1,0")), listed(&["1"]));
        assert_eq!(visible_from_env(Some("1,,0")), listed(&["1"]));
        assert_eq!(visible_from_env(Some("1gpu,+2")), listed(&["1", "2"]));
        assert_eq!(visible_from_env(Some("GPU-8a,GPU-9b,0")), listed(&["GPU-8a", "GPU-9b"]));
        assert_eq!(visible_from_env(Some("MIG-GPU-8a/1/0")), listed(&["MIG-GPU-8a/1/0"]));
    }

    #[test]
    fn a_place_on_the_bus_has_many_spellings() {
        let place = Some([0, 0x65, 0]);
        for id in ["0000:65:00.0", "00000000:65:00.0", "0000:65:00", "0:65:0.0"] {
            assert_eq!(bus_place(id), place, "{id}");
        }
        assert_eq!(bus_place("0001:C1:00.0"), bus_place("00000001:c1:00.0"));
        assert_eq!((bus_place("65:00.0"), bus_place(""), bus_place("a:b:c:d")), (None, None, None));
    }
}
