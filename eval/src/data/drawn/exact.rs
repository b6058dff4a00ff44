//! Arithmetic that gives the same bits on every machine: only `+ - * /`, square roots and `floor`, which IEEE 754
//! defines exactly. The system's sine and arc tangent differ between libraries, so these are ours and approximate.

/// Vigna's splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    /// Uniform in [low, high).
    pub fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A direction, as cosine and sine.
    pub fn direction(&mut self) -> (f64, f64) {
        loop {
            let (x, y) = (self.within(-1.0, 1.0), self.within(-1.0, 1.0));
            let square = x * x + y * y;
            if square > 0.01 && square < 1.0 {
                let length = square.sqrt();
                return (x / length, y / length);
            }
        }
    }
}

/// splitmix64's output function: a hash of 64 bits.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 53 of the bits as a number in [0, 1).
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// The part after the point: in [0, 1), also for negative numbers.
pub(super) fn fraction(x: f64) -> f64 {
    x - x.floor()
}

/// Sine of a number of turns, within 0.002 (Bhaskara I).
pub(super) fn sine(turns: f64) -> f64 {
    let t = fraction(turns);
    let (t, sign) = if t < 0.5 { (t, 1.0) } else { (t - 0.5, -1.0) };
    let p = 2.0 * t * (1.0 - 2.0 * t);
    sign * 16.0 * p / (5.0 - 4.0 * p)
}

/// The direction of a point in turns, in [-0.5, 0.5], within 0.00001.
pub(super) fn turns(x: f64, y: f64) -> f64 {
    let (ax, ay) = (x.abs(), y.abs());
    let (small, large) = if ax < ay { (ax, ay) } else { (ay, ax) };
    if large == 0.0 {
        return 0.0;
    }
    let z = small / large;
    let q = z * z;
    // Abramowitz and Stegun 4.4.49 for the arc tangent on [0, 1], in radians.
    let series = 0.999866 + q * (-0.3302995 + q * (0.180141 + q * (-0.085133 + q * 0.0208351)));
    let eighth = z * series / std::f64::consts::TAU;
    let quarter = if ax < ay { 0.25 - eighth } else { eighth };
    let half = if x < 0.0 { 0.5 - quarter } else { quarter };
    if y < 0.0 { -half } else { half }
}

/// Length of a vector.
pub(super) fn length(x: f64, y: f64) -> f64 {
    (x * x + y * y).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_its_published_first_outputs() {
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn sine_and_turns_are_as_close_as_they_say() {
        for i in -400..400 {
            let t = f64::from(i) / 300.0;
            let exact = (t * std::f64::consts::TAU).sin();
            assert!((sine(t) - exact).abs() < 0.002, "{t}");
            let (y, x) = (t * std::f64::consts::TAU).sin_cos();
            let exact = y.atan2(x) / std::f64::consts::TAU;
            assert!((turns(x, y) - exact).abs() < 1e-5, "{t}");
        }
    }
}
