//! The seeds of the fuzz targets, judged by the same properties without a fuzzer: `make fuzz` looks for more.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library of its own in fuzz/, a module here")]
mod properties;

use std::path::Path;
use std::{fs, panic};

#[test]
fn every_seed_keeps_the_property_of_its_target() {
    type Property = fn(&[u8]);
    let targets: [(&str, Property); 4] = [
        ("envelope", properties::envelope),
        ("ipn", properties::ipn),
        ("certificate", properties::certificate),
        ("message", properties::message),
    ];
    let mut broken = Vec::new();
    for (target, property) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let seeds: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(seeds.len() >= 10, "the seeds of {target} were not found");
        for seed in seeds {
            let bytes = fs::read(&seed).unwrap();
            if panic::catch_unwind(|| property(&bytes)).is_err() {
                broken.push(seed);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn the_genuine_messages_of_the_seeds_verify() {
    assert!(properties::genuine_messages_verify());
}
