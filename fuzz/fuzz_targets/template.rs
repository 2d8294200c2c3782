#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tokenward::testkit::fuzz::template(input);
});
