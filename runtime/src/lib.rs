//! A loaded model that runs: devices, weights applied strictly, engines behind one `Session`.
//!
//! No data set and no metric.
