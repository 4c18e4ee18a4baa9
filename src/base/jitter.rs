//! Chance, where nothing depends on it: attempts are spread, so that those who failed together do not try together.

/// Evenly from 0 to 1, from the system's randomness; needs no seed.
pub(crate) fn jitter() -> f64 {
    let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
    f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_spread_from_0_to_1() {
        let draws: Vec<f64> = (0..1_000).map(|_| jitter()).collect();
        assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
        for part in [0.0..0.25, 0.25..0.5, 0.5..0.75, 0.75..1.01] {
            assert!(draws.iter().any(|draw| part.contains(draw)), "none of a thousand in {part:?}");
        }
    }
}
