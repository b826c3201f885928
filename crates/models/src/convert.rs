//! Numbers of one type as numbers of another: never silently another number.

use arrow::{
    array::{Array, AsArray},
    datatypes::{
        Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type,
    },
};
use half::f16;

/// A type of tensor values that numbers can be turned into.
///
/// Between whole numbers and from floats to whole numbers the value must stay the same; into floats it is rounded to
/// the nearest, and only a finite number that would become infinite is refused.
pub(crate) trait Element: Copy + Default + 'static {
    fn of_f64(value: f64) -> Option<Self>;
    fn of_i64(value: i64) -> Option<Self>;
    fn of_u64(value: u64) -> Option<Self>;

    /// What stands for a missing value, if the type has such a thing.
    fn missing() -> Option<Self> {
        None
    }

    /// The values of an array of exactly this type, where they are.
    fn borrow(_: &dyn Array) -> Option<&[Self]> {
        None
    }
}

macro_rules! whole {
    ($($t:ty, $arrow:ty;)*) => {$(
        impl Element for $t {
            fn of_f64(value: f64) -> Option<Self> {
                // 128 bits hold every whole number that is compared here, so the bounds are exact.
                let whole = value as i128;
                if whole as f64 == value { Self::try_from(whole).ok() } else { None }
            }
            fn of_i64(value: i64) -> Option<Self> {
                Self::try_from(value).ok()
            }
            fn of_u64(value: u64) -> Option<Self> {
                Self::try_from(value).ok()
            }
            fn borrow(array: &dyn Array) -> Option<&[Self]> {
                array.as_primitive_opt::<$arrow>().map(|array| &array.values()[..])
            }
        }
    )*};
}

whole! {
    i8, Int8Type; i16, Int16Type; i32, Int32Type; i64, Int64Type;
    u8, UInt8Type; u16, UInt16Type; u32, UInt32Type; u64, UInt64Type;
}

macro_rules! float {
    ($($t:ty, $arrow:ty, $from:expr;)*) => {$(
        impl Element for $t {
            #[inline]
            fn of_f64(value: f64) -> Option<Self> {
                let rounded: $t = $from(value);
                (rounded.is_finite() || !value.is_finite()).then_some(rounded)
            }
            fn of_i64(value: i64) -> Option<Self> {
                Self::of_f64(value as f64)
            }
            fn of_u64(value: u64) -> Option<Self> {
                Self::of_f64(value as f64)
            }
            fn missing() -> Option<Self> {
                Some(<$t>::NAN)
            }
            fn borrow(array: &dyn Array) -> Option<&[Self]> {
                array.as_primitive_opt::<$arrow>().map(|array| &array.values()[..])
            }
        }
    )*};
}

float! {
    f16, Float16Type, f16::from_f64;
    f32, Float32Type, |value: f64| value as f32;
    f64, Float64Type, |value: f64| value;
}

impl Element for bool {
    fn of_f64(value: f64) -> Option<Self> {
        if value == 0.0 { Some(false) } else { (value == 1.0).then_some(true) }
    }
    fn of_i64(value: i64) -> Option<Self> {
        u64::try_from(value).ok().and_then(Self::of_u64)
    }
    fn of_u64(value: u64) -> Option<Self> {
        (value <= 1).then_some(value == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_the_same_number_or_is_refused() {
        assert_eq!(i8::of_i64(-128), Some(-128));
        assert_eq!(i8::of_i64(128), None);
        assert_eq!(u8::of_i64(-1), None);
        assert_eq!(i64::of_u64(u64::MAX), None);
        assert_eq!(i64::of_f64(9_223_372_036_854_775_808.0), None);
        assert_eq!(i64::of_f64(-9_223_372_036_854_775_808.0), Some(i64::MIN));
        assert_eq!(u64::of_f64(18_446_744_073_709_551_616.0), None);
        assert_eq!(i32::of_f64(1.5), None);
        assert_eq!(i32::of_f64(-0.0), Some(0));
        assert_eq!(i32::of_f64(f64::NAN), None);
        assert_eq!(f32::of_f64(1e39), None);
        assert_eq!(f32::of_f64(f64::INFINITY), Some(f32::INFINITY));
        assert!(f32::of_f64(f64::NAN).unwrap().is_nan());
        assert_eq!(f16::of_i64(70_000), None);
        assert_eq!(f32::of_i64(16_777_217), Some(16_777_216.0));
        assert_eq!(bool::of_f64(0.5), None);
        assert_eq!(bool::of_i64(1), Some(true));
        assert_eq!(bool::of_i64(-1), None);
    }

    proptest::proptest! {
        #[test]
        fn whole_numbers_survive_any_road(value: i64) {
            proptest::prop_assert_eq!(i64::of_i64(value), Some(value));
            proptest::prop_assert_eq!(u64::of_i64(value), u64::try_from(value).ok());
            proptest::prop_assert_eq!(i16::of_f64(value as f64), i16::try_from(value).ok());
        }
    }
}
