#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    sslfile_fuzz::loading::loading(input);
});
