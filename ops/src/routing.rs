//! Routing between regions: which regions of keys does a region of queries see.

use crate::work;
use tch::{Kind, Tensor};

/// The dot products of region means: queries [B, G, C] and keys [B, R, C] to [B, G, R].
pub fn region_logits(queries: &Tensor, keys: &Tensor) -> Tensor {
    work::matmul(queries, &keys.transpose(-2, -1))
}

/// The numbers of the `count` regions with the greatest logits: [B, G, R] to [B, G, count], int64, greatest first.
pub fn top_regions(logits: &Tensor, count: i64) -> Tensor {
    logits.topk(count, -1, true, true).1
}

/// The tokens of listed regions side by side: `x` [B, R, T, C] and `index` [B, G, K] to [B, G, K * T, C].
pub fn gather_regions(x: &Tensor, index: &Tensor) -> Tensor {
    let size = x.size();
    let (batch, regions, tokens, channels) = (size[0], size[1], size[2], size[3]);
    let (groups, listed) = (index.size()[1], index.size()[2]);
    let first = Tensor::arange(batch, (Kind::Int64, x.device())) * regions;
    let rows = (index + first.reshape([-1, 1, 1])).flatten(0, -1);
    x.reshape([-1, tokens * channels])
        .index_select(0, &rows)
        .reshape([-1, groups, listed * tokens, channels])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn routes_go_to_the_greatest_products() {
        let queries = Tensor::from_slice(&[1.0, 0.0, 0.0, -1.0]).reshape([1, 2, 2]);
        let keys = Tensor::from_slice(&[0.5, 3.0, 2.0, -1.0, -1.0, -4.0]).reshape([1, 3, 2]);
        let index = top_regions(&region_logits(&queries, &keys), 2);
        assert_eq!(
            index,
            Tensor::from_slice(&[1i64, 0, 2, 1]).reshape([1, 2, 2])
        );
    }

    #[test]
    fn gathering_stays_inside_the_image() {
        let x = Tensor::arange(2 * 3 * 2 * 2, (Kind::Double, Device::Cpu)).reshape([2, 3, 2, 2]);
        let index = Tensor::from_slice(&[2i64, 0, 1, 1]).reshape([2, 1, 2]);
        let got = gather_regions(&x, &index);
        assert_eq!(got.size(), [2, 1, 4, 2]);
        for (b, at, region) in [(0, 0, 2), (0, 1, 0), (1, 0, 1), (1, 1, 1)] {
            assert_eq!(got.get(b).get(0).narrow(0, at * 2, 2), x.get(b).get(region));
        }
    }
}
