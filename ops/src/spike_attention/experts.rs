//! Spiking attention with experts: several queries over the same keys and values.

use crate::work::{self, Site};
use tch::Tensor;

/// (q k^T) v for the queries of each expert, "Spiking Transformer with Experts Mixture", NeurIPS 2024.
///
/// All experts share k^T v, so that it is made once: N d C products in all for keys and values, and as many for each
/// expert. Of spikes it is exact (see [`super::Order`]).
#[derive(Debug)]
pub struct ExpertAttention {
    scale: Option<f64>,
    site: Site,
}

/// Keys and values that all experts share.
#[derive(Debug)]
pub enum SharedKeys {
    /// k^T v [B, d, C].
    Context(Tensor),
    /// Both as they are, while work is recorded: the published form makes scores for each expert.
    Apart {
        /// Keys [B, N, d].
        keys: Tensor,
        /// Values [B, N, C].
        values: Tensor,
    },
}

impl ExpertAttention {
    /// With a scale of the result where there is one.
    pub fn new(site: Site, scale: Option<f64>) -> Self {
        ExpertAttention { scale, site }
    }

    /// Keys [B, N, d] and values [B, N, C].
    pub fn share(&self, keys: &Tensor, values: &Tensor) -> SharedKeys {
        if work::recording() {
            return SharedKeys::Apart {
                keys: keys.shallow_clone(),
                values: values.shallow_clone(),
            };
        }
        SharedKeys::Context(keys.transpose(1, 2).matmul(values))
    }

    /// One expert's queries [B, N, d] to [B, N, C].
    pub fn attend(&self, queries: &Tensor, shared: &SharedKeys) -> Tensor {
        let mixed = match shared {
            SharedKeys::Context(context) => queries.matmul(context),
            SharedKeys::Apart { keys, values } => {
                let scores = self.site.matmul(queries, &keys.transpose(1, 2));
                self.site.matmul(&scores, values)
            }
        };
        match self.scale {
            Some(scale) => mixed * scale,
            None => mixed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn};

    #[test]
    fn shared_keys_change_no_bit() {
        tch::manual_seed(6);
        let vs = nn::VarStore::new(Device::Cpu);
        let attention = ExpertAttention::new(Site::at(&vs.root()), Some(0.125));
        let spikes = |channels| {
            let p = Tensor::full([2, 50, channels], 0.3, (Kind::Float, Device::Cpu));
            p.bernoulli()
        };
        let (q, k, v) = (spikes(8), spikes(8), spikes(24));
        let shared = attention.attend(&q, &attention.share(&k, &v));
        let (apart, work) = work::record(|| attention.attend(&q, &attention.share(&k, &v)));
        assert!(shared.equal(&apart));
        let macs: u64 = work.contractions.iter().map(|c| c.macs).sum();
        assert_eq!(macs, 2 * 50 * 50 * (8 + 24));
    }
}
