//! Operators on point clouds: sampling, neighbours, gathering.

use crate::inference;
use std::ops::{Add, Mul, Sub};
use tch::{Device, Kind, Tensor};

/// Squared distances, first those that no point has.
const FAR: f64 = 1e10;

/// Furthest point sampling: `count` indices [B, count] (int64) into places [B, N, 3], `count` <= N.
///
/// Begins at point 0 and goes on with the point that is furthest from all that were taken; of equals the first.
/// Distances are squared, in the kind of `places` (float32 for half formats).
///
/// # Panics
/// When there are fewer points than `count`.
pub fn furthest_points(places: &Tensor, count: i64) -> Tensor {
    assert!(
        count <= places.size()[1],
        "more points asked for than there are"
    );
    let places = match places.kind() {
        Kind::Float | Kind::Double => places.detach(),
        _ => places.detach().to_kind(Kind::Float),
    };
    if places.device() == Device::Cpu && !inference::tracing() {
        return match places.kind() {
            Kind::Double => sampled::<f64>(&places, count, FAR),
            _ => sampled::<f32>(&places, count, FAR as f32),
        };
    }
    furthest_points_composed(&places, count)
}

/// The same in tensor algebra: one round of operators for each point.
fn furthest_points_composed(places: &Tensor, count: i64) -> Tensor {
    let distance = |point: &Tensor| {
        let index = point.reshape([-1, 1, 1]).expand([-1, 1, 3], false);
        let square = (places - places.gather(1, &index, false)).square();
        square.select(2, 0) + square.select(2, 1) + square.select(2, 2)
    };
    let first = places.select(2, 0);
    let mut nearest = first.full_like(FAR);
    let mut free = first.ones_like();
    let mut point = first.select(1, 0).zeros_like().to_kind(Kind::Int64);
    let mut taken = Vec::new();
    for _ in 0..count {
        let index = point.unsqueeze(1);
        free = free.scatter_value(1, &index, 0.0);
        nearest = nearest.minimum(&distance(&point));
        taken.push(index);
        point = nearest
            .where_scalarother(&free.gt(0.0), -FAR)
            .argmax(1, false);
    }
    Tensor::cat(&taken, 1)
}

/// The same in one loop.
fn sampled<T>(places: &Tensor, count: i64, far: T) -> Tensor
where
    T: Copy + PartialOrd + Add<Output = T> + Sub<Output = T> + Mul<Output = T> + tch::kind::Element,
{
    let size = places.size();
    let (clouds, points, count) = (size[0] as usize, size[1] as usize, count as usize);
    let coordinates = places.contiguous().flatten(0, -1);
    let coordinates = Vec::<T>::try_from(&coordinates).unwrap_or_default();
    let mut taken = Vec::with_capacity(clouds * count);
    for cloud in coordinates.chunks_exact(3 * points) {
        furthest_of(cloud, count, far, &mut taken);
    }
    Tensor::from_slice(&taken).reshape([size[0], count as i64])
}

/// Indices into one cloud (x, y, z of each point).
fn furthest_of<T>(cloud: &[T], count: usize, far: T, taken: &mut Vec<i64>)
where
    T: Copy + PartialOrd + Add<Output = T> + Sub<Output = T> + Mul<Output = T>,
{
    let mut nearest = vec![far; cloud.len() / 3];
    let mut free = vec![true; nearest.len()];
    let mut point = 0;
    for _ in 0..count {
        taken.push(point as i64);
        free[point] = false;
        let from = [cloud[3 * point], cloud[3 * point + 1], cloud[3 * point + 2]];
        let mut furthest: Option<T> = None;
        for (i, other) in cloud.chunks_exact(3).enumerate() {
            let [x, y, z] = [0, 1, 2].map(|axis| other[axis] - from[axis]);
            let distance = x * x + y * y + z * z;
            if distance < nearest[i] {
                nearest[i] = distance;
            }
            if free[i] && furthest.is_none_or(|best| nearest[i] > best) {
                furthest = Some(nearest[i]);
                point = i;
            }
        }
    }
}

/// The `count` nearest of places [B, N, 3] to each of `centres` [B, S, 3]: indices [B, S, min(count, N)], nearest first.
///
/// Of equally near ones the first; but in float64 the one that libtorch's unstable sort puts first, which differs from processor
/// to processor: official code sorts so, and float64 is what records of it are held in.
pub fn nearest_points(centres: &Tensor, places: &Tensor, count: i64) -> Tensor {
    let square = (centres.unsqueeze(2) - places.unsqueeze(1)).square();
    let distances = square.sum_dim_intlist([-1i64].as_slice(), false, None::<Kind>);
    let count = count.min(places.size()[1]);
    let stable = distances.kind() != Kind::Double;
    let (_sorted, order) = distances.sort_stable(stable, -1, false);
    order.narrow(-1, 0, count)
}

/// Rows of `x` [B, N, C] at `index` [B, ..]: [B, .., C].
pub fn gather_points(x: &Tensor, index: &Tensor) -> Tensor {
    let channels = x.size()[2];
    let flat = index.flatten(1, -1).unsqueeze(-1);
    let rows = x.gather(1, &flat.expand([-1, -1, channels], false), false);
    rows.unflatten(1, &index.size()[1..])
}

/// Places [B, N, 3] without those at `taken` [B, K], in their order: [B, N - K, 3].
pub fn remaining_points(places: &Tensor, taken: &Tensor) -> Tensor {
    let left = places.size()[1] - taken.size()[1];
    let gone = places
        .select(2, 0)
        .zeros_like()
        .scatter_value(1, taken, 1.0);
    // Sorting is stable: those that are left come first, in their order.
    let (_sorted, order) = gone.sort_stable(true, 1, false);
    gather_points(places, &order.narrow(1, 0, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// May be another one at each call: tests of other threads draw from the same generator.
    fn cloud(kind: Kind) -> Tensor {
        tch::manual_seed(7);
        Tensor::randn([3, 200, 3], (kind, Device::Cpu))
    }

    #[test]
    fn all_points_can_be_taken() {
        let x = cloud(Kind::Double);
        let every = furthest_points(&x, 200);
        assert_eq!(remaining_points(&x, &every).size(), [3, 0, 3]);
        let pairs = every.unflatten(1, [100, 2]);
        assert_eq!(gather_points(&x, &pairs).size(), [3, 100, 2, 3]);
    }

    #[test]
    fn the_loop_samples_what_tensor_algebra_samples() {
        for kind in [Kind::Float, Kind::Double] {
            let x = cloud(kind);
            let found = furthest_points(&x, 64);
            assert!(found.equal(&furthest_points_composed(&x, 64)));
            assert_eq!(found.int64_value(&[2, 0]), 0);
        }
        let all = furthest_points(&cloud(Kind::Float).narrow(1, 0, 9), 9);
        let (sorted, _) = all.sort(1, false);
        let each = Tensor::arange(9, (Kind::Int64, Device::Cpu)).expand([3, 9], false);
        assert!(sorted.equal(&each), "nobody is taken twice");
    }

    #[test]
    fn corners_of_a_square_are_taken_across() {
        let square = [0f32, 0., 0., 1., 0., 0., 1., 1., 0., 0.1, 0.9, 0.];
        let square = Tensor::from_slice(&square).reshape([1, 4, 3]);
        let order = Vec::<i64>::try_from(furthest_points(&square, 3).flatten(0, -1)).unwrap();
        assert_eq!(order, [0, 2, 1]);
    }

    #[test]
    fn neighbours_are_the_nearest_and_gathered_by_row() {
        let x = cloud(Kind::Double);
        let near = nearest_points(&x, &x, 5);
        assert_eq!(near.size(), [3, 200, 5]);
        assert_eq!(near.int64_value(&[1, 17, 0]), 17);
        assert_eq!(
            nearest_points(&x, &x.narrow(1, 0, 4), 16).size(),
            [3, 200, 4]
        );
        let rows = gather_points(&x, &near);
        let (b, i, j) = (2, 40, 3);
        let row = near.int64_value(&[b, i, j]);
        assert!(rows.get(b).get(i).get(j).equal(&x.get(b).get(row)));
    }

    #[test]
    fn of_equally_near_points_the_first_is_taken() {
        let twice = cloud(Kind::Float).repeat([1, 2, 1]);
        let near = nearest_points(&twice, &twice, 2);
        let own = Tensor::arange(200, (Kind::Int64, Device::Cpu)).repeat([2]);
        for (rank, later) in [(0, 0), (1, 200)] {
            let expected = (&own + later).expand([3, 400], false);
            assert!(near.select(2, rank).equal(&expected), "{rank}");
        }
    }

    #[test]
    fn what_remains_keeps_its_order() {
        let x = cloud(Kind::Float);
        let taken = Tensor::from_slice(&[0i64, 3, 1, 2, 199, 5]).reshape([3, 2]);
        let left = remaining_points(&x, &taken);
        assert_eq!(left.size(), [3, 198, 3]);
        assert!(left.get(0).get(0).equal(&x.get(0).get(1)));
        assert!(left.get(0).get(2).equal(&x.get(0).get(4)));
        assert!(left.get(2).get(5).equal(&x.get(2).get(6)));
    }
}
