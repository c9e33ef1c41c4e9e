use std::collections::BTreeMap;

use super::*;

/// FNV-1a, so that the value is the same on every platform and with every compiler.
fn fingerprint(sets: &[HeaderSet]) -> u64 {
    let headers = sets.iter().flat_map(|set| &set.headers);
    let bytes = headers.flat_map(|(name, value)| [name, &vec![0xfe], value, &vec![0xff]].map(|part| part.clone()));
    bytes.flatten().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_sets_are_the_same_on_every_machine() {
    assert_eq!(fingerprint(&generated::sets(SEED, GENERATED)), 0);
}

#[test]
fn every_class_has_sets_of_both_kinds() {
    let count = |sets: &[HeaderSet]| {
        let mut counts = BTreeMap::new();
        sets.iter().for_each(|set| *counts.entry(set.class).or_insert(0) += 1);
        counts
    };
    let generated = count(&generated::sets(SEED, GENERATED));
    assert!(
        HostileClass::ALL.iter().all(|class| generated.get(class).is_some_and(|count| *count >= 500)),
        "{generated:?}"
    );
    let written = count(&written::sets());
    let without = HostileClass::ALL.iter().filter(|class| !written.contains_key(class)).collect::<Vec<_>>();
    assert_eq!(without, [&HostileClass::Arbitrary]);
}
