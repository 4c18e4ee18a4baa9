//! The one hash of the protocol: FarmHash's 64-bit fingerprint, which is the same on every platform and release.

/// The fingerprint as the signed number that the protocol's formulas use.
pub(crate) fn hash(bytes: &[u8]) -> i64 {
    farmhash::fingerprint64(bytes).cast_signed()
}

/// The two numbers from which a bloom filter's bit positions follow, whatever its size: |H(x)| and |H(x ++ " b")|.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BloomHash {
    pub(crate) start: u64,
    pub(crate) step: u64,
}

impl BloomHash {
    pub(crate) fn of(item: &[u8]) -> Self {
        let mut salted = Vec::with_capacity(item.len() + 2);
        salted.extend_from_slice(item);
        salted.extend_from_slice(b" b");
        Self { start: hash(item).unsigned_abs(), step: hash(&salted).unsigned_abs() }
    }
}
