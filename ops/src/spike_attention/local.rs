//! Attention inside interleaved sub-images (SGLFormer's local attention).

use crate::split_heads;
use tch::Tensor;

/// Maps [B, C, H, W] as 4 maps of every second place, [4B, C, H/2, W/2]: map (i, j) of an image holds the rows that are
/// i and the columns that are j modulo 2, at index 2i + j behind its image. Both sides are even.
pub fn to_subimages(x: &Tensor) -> Tensor {
    let size = x.size();
    x.reshape([-1, size[1], size[2] / 2, 2, size[3] / 2, 2])
        .permute([0, 3, 5, 1, 2, 4])
        .flatten(0, 2)
}

/// The inverse of [`to_subimages`].
pub fn from_subimages(x: &Tensor) -> Tensor {
    let size = x.size();
    x.unflatten(0, [-1, 2, 2])
        .permute([0, 3, 4, 1, 5, 2])
        .reshape([-1, size[1], 2 * size[2], 2 * size[3]])
}

/// What SGLFormer's local attention hands on: tokens [B, N, C] as a map [B, C, H, W] whose channels and places are mixed.
///
/// The heads' values [B, heads, N, d] are read as if they were [B, N, heads, d], without moving anything, and then
/// transposed. It looks like an oversight and is what the published weights were trained with.
pub fn scrambled_map(tokens: &Tensor, heads: i64, grid: [i64; 2]) -> Tensor {
    let size = tokens.size();
    let (places, channels) = (size[1], size[2]);
    split_heads(tokens, heads)
        .reshape([-1, places, heads, channels / heads])
        .transpose(2, 3)
        .reshape([-1, channels, grid[0], grid[1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn subimages_hold_every_second_place() {
        let x = Tensor::arange(2 * 3 * 4 * 6, (Kind::Float, Device::Cpu)).reshape([2, 3, 4, 6]);
        let parts = to_subimages(&x);
        assert_eq!(parts.size(), [8, 3, 2, 3]);
        // Image 1, rows 1 modulo 2, columns 0 modulo 2; its place (1, 2) is (3, 4).
        let found = parts.double_value(&[4 + 2, 2, 1, 2]);
        assert_eq!(found, x.double_value(&[1, 2, 3, 4]));
        assert!(from_subimages(&parts).equal(&x));
    }

    #[test]
    fn the_scramble_reads_heads_as_places() {
        // One head moves nothing but the transposition; two heads do.
        let x = Tensor::arange(8, (Kind::Float, Device::Cpu)).reshape([1, 4, 2]);
        let flat = |t: Tensor| Vec::<f32>::try_from(t.flatten(0, -1)).unwrap();
        let one = flat(scrambled_map(&x, 1, [2, 2]));
        assert_eq!(one, [0., 1., 2., 3., 4., 5., 6., 7.]);
        // Heads of one channel: [0, 2, 4, 6] and [1, 3, 5, 7], read as four places of two heads.
        let two = flat(scrambled_map(&x, 2, [2, 2]));
        assert_eq!(two, [0., 2., 4., 6., 1., 3., 5., 7.]);
    }
}
