//! The mathematics: where a point of the plane goes under z² + c, and how far
//! it is from those that stay.

/// |z|² beyond which an orbit has escaped. Far more than the 4 it takes, because
/// the smooth count and the distance are limits that grow exact with it.
const ESCAPED: f64 = 1e8;

/// What becomes of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Orbit {
    /// It stays, or has stayed for all iterations there were.
    Inside,
    /// It leaves.
    Outside {
        /// The iterations that takes, without steps between neighbours. Not negative.
        count: f64,
        /// About how far the set is away, in units of the plane. Near it the
        /// true distance is between a quarter of this and all of it.
        distance: f64,
        /// The direction away from the set, of length 1.
        uphill: (f64, f64),
    },
}

/// Follows c = `x` + i`y` for at most `limit` iterations. An orbit that comes
/// back to within `tolerance` of where it has been goes round for ever.
pub(super) fn follow(x: f64, y: f64, limit: u32, tolerance: f64) -> Orbit {
    if in_cardioid(x, y) || in_disc(x, y) {
        return Orbit::Inside;
    }
    let (mut zx, mut zy) = (0.0, 0.0);
    // The derivative of z by c.
    let (mut dx, mut dy) = (0.0, 0.0);
    // Where it was at the last power of two (Brent's way to find a cycle).
    let (mut old_x, mut old_y, mut renew) = (0.0, 0.0, 8);
    for n in 1..=limit {
        (dx, dy) = (2.0 * (zx * dx - zy * dy) + 1.0, 2.0 * (zx * dy + zy * dx));
        (zx, zy) = (zx * zx - zy * zy + x, 2.0 * zx * zy + y);
        let square: f64 = zx * zx + zy * zy;
        if square > ESCAPED {
            return outside(n, (zx, zy), (dx, dy), square);
        }
        if f64::abs(zx - old_x) < tolerance && f64::abs(zy - old_y) < tolerance {
            return Orbit::Inside;
        }
        if n == renew {
            (old_x, old_y, renew) = (zx, zy, renew * 2);
        }
    }
    Orbit::Inside
}

fn outside(n: u32, (zx, zy): (f64, f64), (dx, dy): (f64, f64), square: f64) -> Orbit {
    let log = square.ln() / 2.0;
    let slope = dx.hypot(dy);
    // z / dz is the gradient of the escape time, turned downhill.
    let (ux, uy) = ((zx * dx + zy * dy), (zy * dx - zx * dy));
    let length = ux.hypot(uy);
    Orbit::Outside {
        count: (f64::from(n) + 1.0 - log.log2()).max(0.0),
        distance: 2.0 * square.sqrt() * log / slope,
        uphill: (ux / length, uy / length),
    }
}

/// The heart: half of the work, were it iterated.
fn in_cardioid(x: f64, y: f64) -> bool {
    let p = x - 0.25;
    let q = p * p + y * y;
    q * (q + p) <= 0.25 * y * y
}

/// The disc to the left of it.
fn in_disc(x: f64, y: f64) -> bool {
    (x + 1.0) * (x + 1.0) + y * y <= 0.0625
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: f64 = 1e-9;

    #[test]
    fn points_of_the_set_stay() {
        for (x, y) in [
            (0.0, 0.0),
            (-1.0, 0.0),
            (0.25, 0.0),
            (-1.755, 0.0),
            (-0.122, 0.745),
            (0.0, 1.0),
        ] {
            assert_eq!(follow(x, y, 10_000, TOLERANCE), Orbit::Inside, "{x} + {y}i");
        }
    }

    #[test]
    fn a_cycle_is_noticed_long_before_the_limit() {
        // The centre of a disc of period 3, which neither test of a shape knows.
        // Two thousand million iterations would take seconds.
        assert_eq!(follow(-1.754_877_666, 0.0, u32::MAX, TOLERANCE), Orbit::Inside);
    }

    #[test]
    fn points_far_off_leave_at_once_and_those_near_later() {
        let count = |x, y| match follow(x, y, 10_000, TOLERANCE) {
            Orbit::Outside { count, .. } => count,
            Orbit::Inside => panic!("{x} + {y}i stays"),
        };
        assert!(count(2.0, 2.0) < 2.0);
        assert!(count(0.26, 0.0) > 25.0);
        // Smooth: no step where the number of iterations changes.
        let steps = (0..1000).map(|i| count(0.6 + 1e-4 * f64::from(i), 0.6));
        let counts: Vec<_> = steps.collect();
        let largest = counts
            .windows(2)
            .map(|pair| (pair[0] - pair[1]).abs())
            .fold(0.0, f64::max);
        assert!(largest < 0.1, "a step of {largest}");
    }

    #[test]
    fn the_distance_is_right_within_its_bounds() {
        // The set ends at −2, and nothing of it is nearer to a point left of that.
        for away in [1e-6, 1e-3, 0.1, 0.5] {
            let Orbit::Outside { distance, uphill, .. } = follow(-2.0 - away, 0.0, 10_000, TOLERANCE) else {
                panic!("−2 − {away} stays");
            };
            assert!((away..=away * 4.0).contains(&distance), "{distance} for {away}");
            assert!(uphill.0 < -0.99, "away from the set is to the left: {uphill:?}");
        }
    }
}
