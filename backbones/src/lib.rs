//! The model families, one file each, and the registry that names them.
//!
//! Architecture and data about it; no weights, no engine.
