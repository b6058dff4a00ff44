//! A loaded model that runs: devices, weights applied strictly, engines behind one [`Session`].
//!
//! No data set and no metric.

mod device;
mod guard;
mod head;
mod load;
mod precision;
mod session;

pub use device::{Device, DeviceError, LIBTORCH_VERSION, libtorch_dir};
pub use head::HeadTensors;
pub use load::{WeightsError, WeightsSource, key_maps};
pub use precision::{Precision, UnknownPrecision};
pub use session::{Head, Options, Session, SessionError};
