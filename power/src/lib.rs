//! Measured energy: a GPU's total-energy counter (NVML), a processor's (RAPL), or the reason why there is none.
//!
//! No model, no tensor, no estimate: what is computed from counts of operations is not measured and not here.

mod nvml;
mod rapl;
mod window;

pub use nvml::GpuCounter;
pub use rapl::CpuCounter;
pub use window::{Energy, Measured, Window};

/// Why energy can not be measured here, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// A counter of the energy a device has used, whoever used it.
pub trait EnergyCounter {
    /// What counts, for a report: `NVML total energy of NVIDIA H100, GPU 0`.
    fn source(&self) -> &str;

    /// Joules since some fixed moment. It only grows, in steps as wide as the hardware's updates.
    ///
    /// # Errors
    /// When the device stops answering.
    fn joules(&mut self) -> Result<f64, Unavailable>;
}
