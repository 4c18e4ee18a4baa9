#![no_main]

use libfuzzer_sys::fuzz_target;
use ractor_persistence::testkit::decoding;

fuzz_target!(|bytes: &[u8]| decoding::redb(bytes));
