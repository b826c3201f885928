//! Values of columns as words whose order is the order of the values.

use arrow::datatypes::DataType;
use half::f16;

use crate::cell::{Bits, with_primitive};

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole numbers, dates and times.
    Signed,
    Unsigned,
    Float,
    Truth,
    /// The word is the text's hash.
    Text,
}

/// A number that is added up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole { magnitude: u64, negative: bool },
    Float(f64),
}

const SIGN: u64 = 1 << 63;

impl Kind {
    pub(super) fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Truth,
            DataType::Utf8 => Self::Text,
            float if float.is_floating() => Self::Float,
            unsigned if unsigned.is_unsigned_integer() => Self::Unsigned,
            _ => Self::Signed,
        }
    }

    /// The number that `word` is.
    pub(super) fn number(self, word: u64) -> Number {
        match self {
            Self::Float => Number::Float(float_of(word)),
            Self::Signed => {
                let value = signed_of(word);
                Number::Whole { magnitude: value.unsigned_abs(), negative: value < 0 }
            }
            Self::Unsigned | Self::Truth | Self::Text => Number::Whole { magnitude: word, negative: false },
        }
    }

    /// The number that `word` is, as the nearest float.
    pub(super) fn float(self, word: u64) -> f64 {
        match self.number(word) {
            Number::Float(value) => value,
            Number::Whole { magnitude, negative } => {
                if negative {
                    -(magnitude as f64)
                } else {
                    magnitude as f64
                }
            }
        }
    }

    /// The bits by which values are told apart: both zeros are one value.
    pub(super) fn identity(self, word: u64) -> u64 {
        if self == Self::Float && float_of(word) == 0.0 { word_of_float(0.0) } else { word }
    }
}

/// A native value as a word.
pub(super) trait Word {
    /// `None` for what is not a number.
    fn word(self) -> Option<u64>;
}

macro_rules! signed {
    ($($native:ty),*) => {$(
        impl Word for $native {
            fn word(self) -> Option<u64> { Some(word_of_signed(i64::from(self))) }
        }
    )*};
}
signed!(i8, i16, i32, i64);

macro_rules! unsigned {
    ($($native:ty),*) => {$(
        impl Word for $native {
            fn word(self) -> Option<u64> { Some(u64::from(self)) }
        }
    )*};
}
unsigned!(u8, u16, u32, u64);

macro_rules! float {
    ($($native:ty),*) => {$(
        impl Word for $native {
            fn word(self) -> Option<u64> { (!self.is_nan()).then(|| word_of_float(f64::from(self))) }
        }
    )*};
}
float!(f16, f32, f64);

pub(super) fn word_of_signed(value: i64) -> u64 {
    value as u64 ^ SIGN
}

pub(super) fn signed_of(word: u64) -> i64 {
    (word ^ SIGN) as i64
}

fn word_of_float(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

pub(super) fn float_of(word: u64) -> f64 {
    f64::from_bits(if word & SIGN == 0 { !word } else { word ^ SIGN })
}

/// The bits of a cell of `data_type` from the word of one of its values.
pub(super) fn cell_bits(word: u64, data_type: &DataType) -> u64 {
    match Kind::of(data_type) {
        Kind::Truth | Kind::Unsigned | Kind::Text => word,
        Kind::Signed => with_primitive!(data_type, T => {
            // What came from the narrow type goes back into it: its low bytes.
            let bits = signed_of(word) as u64;
            <T as ArrowPrimitiveType>::Native::from_cell(bits).to_cell()
        }, _ => word),
        Kind::Float => match data_type {
            DataType::Float16 => f16::from_f64(float_of(word)).to_cell(),
            DataType::Float32 => (float_of(word) as f32).to_cell(),
            _ => float_of(word).to_cell(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_order_of_their_values() {
        let floats = [f64::NEG_INFINITY, -1.5, -5e-324, -0.0, 0.0, 5e-324, 1.5, f64::INFINITY];
        assert!(floats.map(|value| value.word().unwrap()).is_sorted());
        assert!([i64::MIN, -1, 0, 1, i64::MAX].map(|value| value.word().unwrap()).is_sorted());
        assert_eq!(f32::NAN.word(), None);
    }

    #[test]
    fn words_go_back_into_their_type() {
        use arrow::datatypes::TimeUnit;
        let signed = |value: i64, data_type: DataType, bits: u64| {
            assert_eq!(cell_bits(word_of_signed(value), &data_type), bits, "{data_type}");
        };
        signed(-1, DataType::Int8, 0xff);
        signed(-2, DataType::Int32, 0xffff_fffe);
        signed(-3, DataType::Date32, 0xffff_fffd);
        signed(-4, DataType::Timestamp(TimeUnit::Microsecond, None), (-4_i64) as u64);
        for value in [-0.0, 1.5, f64::INFINITY] {
            assert_eq!(cell_bits(value.word().unwrap(), &DataType::Float64), value.to_bits());
            let narrow = value as f32;
            assert_eq!(cell_bits(narrow.word().unwrap(), &DataType::Float32), u64::from(narrow.to_bits()));
        }
    }
}
