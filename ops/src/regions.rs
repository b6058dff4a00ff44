//! Maps of tokens cut into regions (windows), and put together again.

use tch::{Kind, Tensor};

/// A grid of equal rectangular regions over a map of tokens [B, H, W, C].
///
/// Regions are numbered row by row, and so are the tokens of a region. Where the map is smaller than the grid it is
/// padded at the bottom and on the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Regions {
    /// Regions along height and width.
    pub count: [i64; 2],
    /// Tokens of a region along height and width.
    pub size: [i64; 2],
}

impl Regions {
    /// `count` regions along each side of a map of height x width `map`, as small as cover it.
    pub fn of_count(map: [i64; 2], count: [i64; 2]) -> Self {
        let size = [0, 1].map(|i| ceil_div(map[i], count[i]));
        Regions { count, size }
    }

    /// Regions of height x width `size`, as few as cover the `map`.
    pub fn of_size(map: [i64; 2], size: [i64; 2]) -> Self {
        let count = [0, 1].map(|i| ceil_div(map[i], size[i]));
        Regions { count, size }
    }

    /// One region: the whole map.
    pub fn whole(map: [i64; 2]) -> Self {
        Self::of_count(map, [1, 1])
    }

    /// The number of regions.
    pub fn len(&self) -> i64 {
        self.count[0] * self.count[1]
    }

    /// Whether there are no regions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of one region.
    pub fn tokens(&self) -> i64 {
        self.size[0] * self.size[1]
    }

    /// Height and width of the grid.
    pub fn extent(&self) -> [i64; 2] {
        [0, 1].map(|i| self.count[i] * self.size[i])
    }

    /// [B, H, W, C] with zeros appended up to the grid's extent; the same tensor where none are missing.
    pub fn pad(&self, x: &Tensor) -> Tensor {
        let (extent, size) = (self.extent(), x.size());
        let missing = [extent[0] - size[1], extent[1] - size[2]];
        if missing == [0, 0] {
            return x.shallow_clone();
        }
        x.pad([0, 0, 0, missing[1], 0, missing[0]], "constant", 0.0)
    }

    /// A map of the grid's extent as a view [B, rows, height, cols, width, C].
    pub fn view(&self, x: &Tensor) -> Tensor {
        x.unflatten(1, [self.count[0], self.size[0]])
            .unflatten(3, [self.count[1], self.size[1]])
    }

    /// A map of the grid's extent to [B, regions, tokens, C]: one copy, none where there is one region.
    pub fn partition(&self, x: &Tensor) -> Tensor {
        let regions = self.view(x).permute([0, 1, 3, 2, 4, 5]);
        regions.flatten(3, 4).flatten(1, 2)
    }

    /// The inverse of [`Regions::partition`].
    pub fn merge(&self, x: &Tensor) -> Tensor {
        x.unflatten(2, self.size)
            .unflatten(1, self.count)
            .permute([0, 1, 3, 2, 4, 5])
            .flatten(3, 4)
            .flatten(1, 2)
    }

    /// The mean of each region, padding left out: [B, H, W, C] to [B, regions, C], in at least single precision.
    pub fn mean(&self, x: &Tensor) -> Tensor {
        let kind = accumulator(x.kind());
        let [height, width] = self.extent();
        if x.size()[1..3] == [height, width] {
            let mean = self.view(x).mean_dim([2i64, 4].as_slice(), false, kind);
            return mean.flatten(1, 2);
        }
        let sum = |t: &Tensor| {
            let padded = self.view(&self.pad(t));
            padded
                .sum_dim_intlist([2i64, 4].as_slice(), false, kind)
                .flatten(1, 2)
        };
        let real_tokens = sum(&x.narrow(3, 0, 1).ones_like());
        sum(x) / real_tokens
    }
}

/// The upper left `map` (height x width) of a padded map [B, H', W', C], as a view.
pub fn crop(x: &Tensor, map: [i64; 2]) -> Tensor {
    let size = x.size();
    let rows = if size[1] == map[0] {
        x.shallow_clone()
    } else {
        x.narrow(1, 0, map[0])
    };
    if size[2] == map[1] {
        rows
    } else {
        rows.narrow(2, 0, map[1])
    }
}

/// The kind in which sums over tokens are made: routing compares them, and bf16 has too few digits for that.
fn accumulator(kind: Kind) -> Kind {
    match kind {
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    }
}

fn ceil_div(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn map(height: i64, width: i64) -> Tensor {
        let count = 2 * height * width * 3;
        Tensor::arange(count, (Kind::Double, Device::Cpu)).reshape([2, height, width, 3])
    }

    #[test]
    fn a_region_holds_its_tokens_in_row_order() {
        let x = map(6, 4);
        let regions = Regions::of_size([6, 4], [3, 2]);
        let parts = regions.partition(&x);
        assert_eq!(parts.size(), [2, 4, 6, 3]);
        for (b, r, c, i, j) in [(0, 0, 0, 0, 0), (1, 1, 0, 2, 1), (0, 1, 1, 1, 0)] {
            let ours = parts.get(b).get(r * 2 + c).get(i * 2 + j);
            let token = x.get(b).get(r * 3 + i).get(c * 2 + j);
            assert_eq!(ours, token);
        }
        assert_eq!(regions.merge(&parts), x);
    }

    #[test]
    fn the_grid_covers_maps_it_does_not_divide() {
        assert_eq!(Regions::of_count([16, 8], [7, 7]).size, [3, 2]);
        assert_eq!(Regions::of_size([16, 20], [2, 2]).count, [8, 10]);
        let x = map(5, 3);
        let regions = Regions::of_size([5, 3], [2, 2]);
        let padded = regions.pad(&x);
        assert_eq!(padded.size(), [2, 6, 4, 3]);
        assert_eq!(crop(&padded, [5, 3]), x);
        assert_eq!(padded.sum(Kind::Double), x.sum(Kind::Double));
    }

    #[test]
    fn means_leave_padding_out() {
        let x = map(5, 3);
        let regions = Regions::of_size([5, 3], [2, 2]);
        let means = regions.mean(&x);
        for (r, c) in [(0, 0), (0, 1), (2, 0), (2, 1)] {
            let region =
                x.slice(1, r * 2, (r * 2 + 2).min(5), 1)
                    .slice(2, c * 2, (c * 2 + 2).min(3), 1);
            let wanted = region.mean_dim([1i64, 2].as_slice(), false, Kind::Double);
            let error = (means.select(1, r * 2 + c) - wanted).abs().max();
            assert!(error.double_value(&[]) < 1e-12);
        }
    }
}
