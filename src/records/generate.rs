//! What generators write.

use uuid::Uuid;

use crate::base::value::Value;

/// A UUID as it is written, `67e55044-10b1-426f-9247-bb680e5fe0c8`.
pub(super) fn uuid_text(draw: Uuid) -> Value {
    let mut text = Uuid::encode_buffer();
    Value::from(&*draw.hyphenated().encode_lower(&mut text))
}

/// `c`, 12 hexadecimal digits of `now` in milliseconds, which reach to the year 10,889, and 20 random ones. A clock before
/// 1970 counts as 1970.
pub(super) fn cuid_text(now: i64, draw: Uuid) -> Value {
    let now = u64::try_from(now).unwrap_or(0).min((1 << 48) - 1);
    // The first 48 and the last 32 bits of a random UUID are random; version and variant lie in between.
    let bits = draw.as_u128();
    let random = (bits >> 80) << 32 | (bits & u128::from(u32::MAX));
    Value::from(format!("c{now:012x}{random:020x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cuid_sorts_by_time_and_takes_only_random_bits() {
        let text = |now, draw| cuid_text(now, Uuid::from_u128(draw)).as_str().unwrap_or_default().to_owned();
        let draw = 0x1234_5678_9abc_4def_8000_0000_fedc_ba98;
        assert_eq!(text(0x0123_4567_89ab, draw), "c0123456789ab123456789abcfedcba98");
        assert!(text(999, u128::MAX) < text(1_000, 0));
        assert_eq!(text(-5, 0), format!("c{}", "0".repeat(32)));
        assert_eq!(text(i64::MAX, u128::MAX), format!("c{}", "f".repeat(32)));
        // No digit is the same in all of them: what a UUID fixes is not in it.
        let many: Vec<String> = (0..64).map(|_| text(0, Uuid::new_v4().as_u128())).collect();
        for at in 13..33 {
            assert!(many.iter().any(|one| one.as_bytes()[at] != many[0].as_bytes()[at]), "digit {at}");
        }
    }
}
