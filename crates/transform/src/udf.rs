//! Functions that DataFusion lacks: `log1p`, `expm1` and `clamp`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
    datatypes::{
        DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
    type_coercion::binary::type_union_resolution,
};

/// A function of one float that DataFusion lacks. Its result is, to the bit, that of the Rust function of that name.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct FloatFunction {
    name: &'static str,
    kind: FloatKind,
    signature: Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FloatKind {
    Log1p,
    Expm1,
}

impl FloatKind {
    fn f64(self, x: f64) -> f64 {
        match self {
            Self::Log1p => x.ln_1p(),
            Self::Expm1 => x.exp_m1(),
        }
    }

    fn f32(self, x: f32) -> f32 {
        match self {
            Self::Log1p => x.ln_1p(),
            Self::Expm1 => x.exp_m1(),
        }
    }
}

impl FloatFunction {
    fn new(name: &'static str, kind: FloatKind) -> Self {
        let types = vec![DataType::Float64, DataType::Float32];
        Self { name, kind, signature: Signature::uniform(1, types, Volatility::Immutable) }
    }

    /// `ln(1 + x)`, exact for small `x`.
    pub(crate) fn log1p() -> Self {
        Self::new("log1p", FloatKind::Log1p)
    }

    /// `exp(x) - 1`, exact for small `x`.
    pub(crate) fn expm1() -> Self {
        Self::new("expm1", FloatKind::Expm1)
    }
}

impl ScalarUDFImpl for FloatFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(if types.first() == Some(&DataType::Float32) { DataType::Float32 } else { DataType::Float64 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [arg] = <[ColumnarValue; 1]>::try_from(args.args)
            .map_err(|_| datafusion_common::exec_datafusion_err!("{} takes one argument", self.name))?;
        let array = arg.into_array(rows)?;
        let kind = self.kind;
        let out: ArrayRef = if let Some(values) = array.as_primitive_opt::<Float64Type>() {
            Arc::new(values.unary::<_, Float64Type>(|x| kind.f64(x)))
        } else if let Some(values) = array.as_primitive_opt::<Float32Type>() {
            Arc::new(values.unary::<_, Float32Type>(|x| kind.f32(x)))
        } else {
            return exec_err!("{} takes a number, not {}", self.name, array.data_type());
        };
        Ok(ColumnarValue::Array(out))
    }
}

/// `clamp(x, low, high)`: the nearest value to `x` from `low` to `high`. Null stays null, NaN stays NaN, and a null
/// bound is no bound. Where `low` is above `high`, `low` wins for what is below it and `high` for the rest above.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Clamp {
    signature: Signature,
}

impl Clamp {
    pub(crate) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Clamp {
    fn name(&self) -> &str {
        "clamp"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(first) => Ok(first.clone()),
            None => plan_err!("clamp takes three arguments: clamp(x, low, high)"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow::datatypes::FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.first().is_none_or(|field| field.is_nullable());
        Ok(Arc::new(arrow::datatypes::Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() != 3 {
            return plan_err!("clamp takes three arguments: clamp(x, low, high)");
        }
        let common = type_union_resolution(types);
        match common {
            Some(common) if clamped(&common) => Ok(vec![common; 3]),
            _ => plan_err!(
                "clamp takes numbers or points in time, not {}, {} and {}",
                types[0],
                types[1],
                types[2]
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let [x, low, high] = arrays.as_slice() else {
            return exec_err!("clamp takes three arguments");
        };
        macro_rules! by_type {
            ($($pattern:pat => $type:ty),* $(,)?) => {
                match x.data_type() {
                    $($pattern => clamp::<$type>(x, low, high),)*
                    other => exec_err!("clamp takes numbers or points in time, not {other}"),
                }
            };
        }
        by_type! {
            DataType::Int8 => Int8Type, DataType::Int16 => Int16Type, DataType::Int32 => Int32Type,
            DataType::Int64 => Int64Type, DataType::UInt8 => UInt8Type, DataType::UInt16 => UInt16Type,
            DataType::UInt32 => UInt32Type, DataType::UInt64 => UInt64Type, DataType::Float32 => Float32Type,
            DataType::Float64 => Float64Type, DataType::Date32 => Date32Type,
            DataType::Timestamp(TimeUnit::Second, _) => TimestampSecondType,
            DataType::Timestamp(TimeUnit::Millisecond, _) => TimestampMillisecondType,
            DataType::Timestamp(TimeUnit::Microsecond, _) => TimestampMicrosecondType,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => TimestampNanosecondType,
        }
        .map(ColumnarValue::Array)
    }
}

fn clamped(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Float32 | DataType::Float64 | DataType::Date32 | DataType::Timestamp(_, _)
        )
}

/// `x` brought between bounds, where there are any.
pub(crate) fn clamped_value<V: PartialOrd>(x: V, low: Option<V>, high: Option<V>) -> V {
    match (low, high) {
        (Some(low), _) if x < low => low,
        (_, Some(high)) if x > high => high,
        _ => x,
    }
}

fn clamp<T>(x: &ArrayRef, low: &ArrayRef, high: &ArrayRef) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: PartialOrd,
{
    let arrays = [x, low, high].map(|array| array.as_primitive_opt::<T>());
    let [Some(x), Some(low), Some(high)] = arrays else {
        return exec_err!("clamp takes arguments of one type");
    };
    let bound = |bounds: &PrimitiveArray<T>, row| bounds.is_valid(row).then(|| bounds.value(row));
    let values: Vec<T::Native> =
        (0..x.len()).map(|row| clamped_value(x.value(row), bound(low, row), bound(high, row))).collect();
    let out =
        PrimitiveArray::<T>::new(values.into(), x.nulls().cloned()).with_data_type(x.data_type().clone());
    Ok(Arc::new(out))
}
