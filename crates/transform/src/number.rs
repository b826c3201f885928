//! The arithmetic of the types that are computed value by value.

use std::cmp::Ordering;

use arrow::{
    array::ArrowPrimitiveType,
    datatypes::{DataType, Float32Type, Float64Type, Int64Type},
};
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;

/// An operation on two numbers; `None` where DataFusion answers with an error.
pub(crate) type Binary<V> = fn(V, V) -> Option<V>;
/// A function of one number; `None` where DataFusion answers with an error, or may.
pub(crate) type Unary<V> = fn(V) -> Option<V>;

/// What the arithmetic of a type is; `None` where DataFusion answers with an error.
pub(crate) trait Number: ArrowPrimitiveType<Native: Default> {
    fn literal(value: &ScalarValue) -> Option<Option<Self::Native>>;
    fn binary(operator: Operator) -> Option<Binary<Self::Native>>;
    fn function(name: &str) -> Option<Unary<Self::Native>>;
    fn negate(value: Self::Native) -> Option<Self::Native>;
    fn compare(a: Self::Native, b: Self::Native) -> Ordering;
    fn from_i64(value: i64) -> Option<Self::Native>;
    fn from_f64(value: f64) -> Option<Self::Native>;
    /// Whether a cast from this type is never an error.
    fn converts(from: &DataType) -> bool;
}

macro_rules! floats {
    ($type:ty, $float:ty, $scalar:ident, $($from:pat_param)|+) => {
        impl Number for $type {
            fn literal(value: &ScalarValue) -> Option<Option<$float>> {
                if let ScalarValue::$scalar(value) = value { Some(*value) } else { None }
            }
            fn binary(operator: Operator) -> Option<Binary<$float>> {
                Some(match operator {
                    Operator::Plus => |a, b| Some(a + b),
                    Operator::Minus => |a, b| Some(a - b),
                    Operator::Multiply => |a, b| Some(a * b),
                    Operator::Divide => |a, b| Some(a / b),
                    Operator::Modulo => |a, b| Some(a % b),
                    _ => return None,
                })
            }
            fn function(name: &str) -> Option<Unary<$float>> {
                Some(match name {
                    "abs" => |x| Some(x.abs()),
                    "ceil" => |x| Some(x.ceil()),
                    "cos" => |x| Some(x.cos()),
                    "exp" => |x| Some(x.exp()),
                    "expm1" => |x| Some(x.exp_m1()),
                    "floor" => |x| Some(x.floor()),
                    "ln" => |x| Some(x.ln()),
                    "log10" => |x| Some(x.log10()),
                    "log1p" => |x| Some(x.ln_1p()),
                    "log2" => |x| Some(x.log2()),
                    "sin" => |x| Some(x.sin()),
                    // The root of a negative number is an error.
                    "sqrt" => |x| if x >= 0.0 { Some(x.sqrt()) } else { None },
                    "tanh" => |x| Some(x.tanh()),
                    _ => return None,
                })
            }
            fn negate(value: $float) -> Option<$float> {
                Some(-value)
            }
            /// The total order, but for zero, which has no sign.
            fn compare(a: $float, b: $float) -> Ordering {
                let unsigned = |x: $float| if x == 0.0 { 0.0 } else { x };
                unsigned(a).total_cmp(&unsigned(b))
            }
            fn from_i64(value: i64) -> Option<$float> {
                Some(value as $float)
            }
            fn from_f64(value: f64) -> Option<$float> {
                Some(value as $float)
            }
            fn converts(from: &DataType) -> bool {
                is_small_int(from) || matches!(from, DataType::Int64 | $($from)|+)
            }
        }
    };
}

floats!(Float64Type, f64, Float64, DataType::Float32);
floats!(Float32Type, f32, Float32, DataType::Float64);

impl Number for Int64Type {
    fn literal(value: &ScalarValue) -> Option<Option<i64>> {
        if let ScalarValue::Int64(value) = value { Some(*value) } else { None }
    }
    fn binary(operator: Operator) -> Option<Binary<i64>> {
        Some(match operator {
            Operator::Plus => i64::checked_add,
            Operator::Minus => i64::checked_sub,
            Operator::Multiply => i64::checked_mul,
            Operator::Divide => i64::checked_div,
            Operator::Modulo => i64::checked_rem,
            _ => return None,
        })
    }
    fn function(name: &str) -> Option<Unary<i64>> {
        match name {
            "abs" => Some(i64::checked_abs),
            _ => None,
        }
    }
    fn negate(value: i64) -> Option<i64> {
        value.checked_neg()
    }
    fn compare(a: i64, b: i64) -> Ordering {
        a.cmp(&b)
    }
    fn from_i64(value: i64) -> Option<i64> {
        Some(value)
    }
    fn from_f64(_: f64) -> Option<i64> {
        None
    }
    fn converts(from: &DataType) -> bool {
        is_small_int(from)
    }
}

fn is_small_int(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
    )
}
