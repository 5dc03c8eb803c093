//! Every kind of serde's data model comes back as it went.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::{NonZero, Wrapping};
use std::ops::Bound;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::collection;
use proptest::prelude::{any, proptest};

use super::model::{Unit, any_value};
use super::{assert_round_trip, decode, encoded};

proptest! {
    #[test]
    fn any_value_comes_back(value in any_value()) {
        assert_round_trip(value);
    }

    #[test]
    fn small_values_come_back(
        numbers in any::<(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128)>(),
        (single, double) in any::<(u32, u64)>(),
        others in any::<(bool, char, usize, isize, Option<Option<bool>>, String)>(),
    ) {
        assert_round_trip(numbers);
        assert_round_trip(numbers.4);
        assert_round_trip(numbers.9);
        assert_round_trip(others.1);
        assert_round_trip(others);
        let floats = (f32::from_bits(single), f64::from_bits(double));
        let (back_single, back_double) = decode::<(f32, f64)>(&encoded(&floats)).unwrap();
        assert_eq!((back_single.to_bits(), back_double.to_bits()), (single, double));
    }

    #[test]
    fn maps_come_back(
        map in collection::hash_map(any::<(u8, String)>(), any::<Option<i64>>(), 0..8),
    ) {
        assert_round_trip(map);
    }
}

#[test]
fn types_of_the_standard_library_come_back() {
    assert_round_trip(Duration::new(3, 4));
    assert_round_trip(SystemTime::UNIX_EPOCH + Duration::from_millis(7));
    assert_round_trip(IpAddr::V6(Ipv6Addr::LOCALHOST));
    assert_round_trip("127.0.0.1:80".parse::<SocketAddr>().unwrap());
    assert_round_trip(PathBuf::from("/a/b"));
    assert_round_trip(OsString::from("name"));
    assert_round_trip(Cow::<str>::Borrowed("lent"));
    assert_round_trip(NonZero::<u32>::MIN);
    assert_round_trip(Wrapping(5u16));
    assert_round_trip(Bound::Included(3u8));
    assert_round_trip(1u8..4);
    assert_round_trip(BTreeSet::from([1u8, 2]));
    assert_round_trip(Box::<str>::from("boxed"));
    assert_round_trip([[1u8, 2], [3, 4]]);
    assert_round_trip(Err::<(), _>(String::from("no")));
}

#[test]
fn elements_without_bytes_come_back() {
    assert_round_trip(vec![(); 100_000]);
    assert_round_trip(vec![Unit; 3]);
    assert_round_trip(vec![[0u64; 0]; 3]);
    assert_round_trip(
        (0..1000u32)
            .map(|key| (key, ()))
            .collect::<BTreeMap<_, _>>(),
    );
    assert_round_trip(HashMap::from([((), 1u8)]));
    assert_round_trip(BTreeSet::from([()]));
}
