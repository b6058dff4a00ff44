//! `zoo compare`
