//! NVIDIA GPUs, by the driver's management library.

use crate::{EnergyCounter, Unavailable};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

/// The total-energy counter of one GPU: Volta and newer have one.
pub struct GpuCounter {
    nvml: Nvml,
    index: u32,
    source: String,
}

impl GpuCounter {
    /// The counter of the GPU that CUDA calls `ordinal`, following `CUDA_VISIBLE_DEVICES`.
    ///
    /// # Errors
    /// Without a driver, a GPU of that number, or a counter on it.
    pub fn open(ordinal: usize) -> Result<GpuCounter, Unavailable> {
        let nvml = Nvml::init()
            .map_err(|e| Unavailable(format!("NVML, the NVIDIA driver's library: {e}")))?;
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let (index, source) = {
            let device = find(&nvml, ordinal, visible.as_deref())?;
            let index = device.index().map_err(|e| unavailable(ordinal, &e))?;
            let name = device.name().map_err(|e| unavailable(ordinal, &e))?;
            (index, format!("NVML total energy of {name}, GPU {index}"))
        };
        let mut counter = GpuCounter {
            nvml,
            index,
            source,
        };
        counter.joules()?;
        Ok(counter)
    }
}

impl EnergyCounter for GpuCounter {
    fn source(&self) -> &str {
        &self.source
    }

    fn joules(&mut self) -> Result<f64, Unavailable> {
        let device = self.nvml.device_by_index(self.index);
        let millijoules = device.and_then(|device| device.total_energy_consumption());
        match millijoules {
            Ok(millijoules) => Ok(millijoules as f64 * 1e-3),
            Err(e) => Err(unavailable(self.index as usize, &e)),
        }
    }
}

fn find<'n>(
    nvml: &'n Nvml,
    ordinal: usize,
    visible: Option<&str>,
) -> Result<Device<'n>, Unavailable> {
    let device = match visible_entry(visible, ordinal)? {
        Entry::Index(index) => nvml.device_by_index(index),
        Entry::Uuid(uuid) => nvml.device_by_uuid(uuid),
    };
    device.map_err(|e| unavailable(ordinal, &e))
}

fn unavailable(ordinal: usize, error: &NvmlError) -> Unavailable {
    Unavailable(format!("energy counter of GPU {ordinal}: {error}"))
}

#[derive(Debug, PartialEq, Eq)]
enum Entry<'a> {
    Index(u32),
    Uuid(&'a str),
}

/// What `CUDA_VISIBLE_DEVICES` makes of an ordinal.
fn visible_entry(visible: Option<&str>, ordinal: usize) -> Result<Entry<'_>, Unavailable> {
    let Some(visible) = visible else {
        return Ok(Entry::Index(u32::try_from(ordinal).unwrap_or(u32::MAX)));
    };
    let entry = visible.split(',').nth(ordinal).map(str::trim);
    match entry {
        Some(text) if text.starts_with("GPU-") => Ok(Entry::Uuid(text)),
        Some(text) => text.parse().map(Entry::Index).map_err(|_| {
            Unavailable(format!(
                "CUDA_VISIBLE_DEVICES={visible}: `{text}` is neither a number nor a GPU-UUID"
            ))
        }),
        None => Err(Unavailable(format!(
            "CUDA_VISIBLE_DEVICES={visible} has no entry {ordinal}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_follow_the_visible_devices() {
        assert_eq!(visible_entry(None, 3), Ok(Entry::Index(3)));
        assert_eq!(visible_entry(Some("2, 0"), 0), Ok(Entry::Index(2)));
        let uuid = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6";
        assert_eq!(visible_entry(Some(uuid), 0), Ok(Entry::Uuid(uuid)));
        assert!(visible_entry(Some("0"), 1).is_err());
        let error = visible_entry(Some("MIG-1"), 0).unwrap_err().to_string();
        assert!(error.contains("MIG-1"), "{error}");
    }
}
