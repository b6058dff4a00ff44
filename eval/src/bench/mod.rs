//! Statistics of repeated timings on a machine that others use too.
