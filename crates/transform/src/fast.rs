//! A second evaluator for a few rows at a time.
//!
//! A kernel over columns costs a fraction of a microsecond before it looks at the first value. For a handful of rows
//! the common expressions are computed value by value instead. Where that is not sure to be what DataFusion answers (a
//! fault, an overflow), it answers nothing and DataFusion is asked. That both agree to the bit is a property test.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, StringArray, StructArray},
    buffer::{BooleanBuffer, NullBuffer},
    datatypes::{
        DataType, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema,
        UInt8Type, UInt16Type, UInt32Type,
    },
};
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::{
    PhysicalExpr, ScalarFunctionExpr,
    expressions::{
        BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NegativeExpr,
        NotExpr,
    },
};

use crate::number::{Binary, Number, Unary};

/// Batches up to this many rows are computed value by value.
pub(crate) const FEW_ROWS: usize = 16;

/// DataFusion has to be asked.
#[derive(Debug)]
pub(crate) struct Unsure;

/// The value of one row.
type Cell<V> = Result<Option<V>, Unsure>;

/// An expression that can be computed value by value, by the type of its result.
#[derive(Debug)]
pub(crate) enum Fast {
    F64(Num<Float64Type>),
    F32(Num<Float32Type>),
    I64(Num<Int64Type>),
    Bool(Test),
    Text(Text),
    Struct(Fields, Vec<Fast>),
}

impl Fast {
    /// `None` when a part of the expression is of another kind.
    pub(crate) fn new(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Self> {
        let data_type = expr.data_type(schema).ok()?;
        Some(match data_type {
            DataType::Float64 => Self::F64(Num::new(expr, schema)?),
            DataType::Float32 => Self::F32(Num::new(expr, schema)?),
            DataType::Int64 => Self::I64(Num::new(expr, schema)?),
            DataType::Boolean => Self::Bool(Test::new(expr, schema)?),
            DataType::Utf8 => Self::Text(Text::new(expr, schema)?),
            DataType::Struct(fields) => {
                let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
                let values: Vec<_> = match call.name() {
                    "named_struct" => call.args().iter().skip(1).step_by(2).collect(),
                    "struct" => call.args().iter().collect(),
                    _ => return None,
                };
                let values: Option<Vec<_>> =
                    values.into_iter().map(|value| Self::new(value, schema)).collect();
                Self::Struct(fields, values?)
            }
            _ => return None,
        })
    }

    /// The values of every row.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, Unsure> {
        let rows = batch.num_rows();
        Ok(match self {
            Self::F64(num) => num.array(batch)?,
            Self::F32(num) => num.array(batch)?,
            Self::I64(num) => num.array(batch)?,
            Self::Bool(test) => {
                let (values, nulls) = cells(rows, |row| test.get(batch, row))?;
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Self::Text(text) => {
                let cells: Result<Vec<_>, _> = (0..rows).map(|row| text.get(batch, row)).collect();
                Arc::new(StringArray::from(cells?))
            }
            Self::Struct(fields, values) => {
                let values: Result<Vec<_>, _> = values.iter().map(|value| value.evaluate(batch)).collect();
                Arc::new(StructArray::try_new(fields.clone(), values?, None).map_err(|_| Unsure)?)
            }
        })
    }

    /// The value of one row as a number; `None` for null.
    pub(crate) fn number(&self, batch: &RecordBatch, row: usize) -> Cell<AnyNumber> {
        Ok(match self {
            Self::F64(num) => num.get(batch, row)?.map(AnyNumber::F64),
            Self::F32(num) => num.get(batch, row)?.map(AnyNumber::F32),
            Self::I64(num) => num.get(batch, row)?.map(AnyNumber::I64),
            Self::Bool(test) => test.get(batch, row)?.map(|holds| AnyNumber::I64(holds.into())),
            Self::Text(_) | Self::Struct(..) => return Err(Unsure),
        })
    }

    fn is_null(&self, batch: &RecordBatch, row: usize) -> Result<bool, Unsure> {
        Ok(match self {
            Self::F64(num) => num.get(batch, row)?.is_none(),
            Self::F32(num) => num.get(batch, row)?.is_none(),
            Self::I64(num) => num.get(batch, row)?.is_none(),
            Self::Bool(test) => test.get(batch, row)?.is_none(),
            Self::Text(text) => text.get(batch, row)?.is_none(),
            Self::Struct(..) => false,
        })
    }
}

/// A number of one of the types that are computed value by value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyNumber {
    F64(f64),
    F32(f32),
    I64(i64),
}

/// Values and, when there are any, nulls.
fn cells<V: Default>(
    rows: usize,
    mut get: impl FnMut(usize) -> Cell<V>,
) -> Result<(Vec<V>, Option<NullBuffer>), Unsure> {
    let mut values = Vec::with_capacity(rows);
    let mut valid: Option<Vec<bool>> = None;
    for row in 0..rows {
        let cell = get(row)?;
        if cell.is_none()
            && let Some(valid) = valid.get_or_insert_with(|| vec![true; rows]).get_mut(row)
        {
            *valid = false;
        }
        values.push(cell.unwrap_or_default());
    }
    Ok((values, valid.map(|valid| NullBuffer::new(BooleanBuffer::from(valid)))))
}

/// An expression with a number for each row.
#[derive(Debug)]
pub(crate) enum Num<T: Number> {
    Column(usize),
    Literal(Option<T::Native>),
    Binary(Binary<T::Native>, Box<(Num<T>, Num<T>)>),
    Call(Unary<T::Native>, Box<Num<T>>),
    Clamp(Box<[Num<T>; 3]>),
    Case(Box<Case<Num<T>>>),
    Convert(Box<Source>),
}

/// A number of another type.
#[derive(Debug)]
pub(crate) enum Source {
    Small(usize),
    I64(Num<Int64Type>),
    F32(Num<Float32Type>),
    F64(Num<Float64Type>),
}

/// The arms of a `CASE` and what holds without one.
#[derive(Debug)]
pub(crate) struct Case<V> {
    arms: Vec<(Test, V)>,
    otherwise: Option<V>,
}

impl<V> Case<V> {
    fn new(
        case: &CaseExpr,
        schema: &Schema,
        value: impl Fn(&Arc<dyn PhysicalExpr>) -> Option<V>,
    ) -> Option<Self> {
        // `CASE x WHEN y` tells zero from negative zero, which `x = y` does not.
        if case.expr().is_some_and(|base| base.data_type(schema).is_ok_and(|base| base.is_floating())) {
            return None;
        }
        let arm = |(when, then): &(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)| {
            let when = match case.expr() {
                Some(base) => Test::compare(Operator::Eq, base, when, schema)?,
                None => Test::new(when, schema)?,
            };
            Some((when, value(then)?))
        };
        let arms = case.when_then_expr().iter().map(arm).collect::<Option<Vec<_>>>()?;
        let otherwise = match case.else_expr() {
            Some(otherwise) => Some(value(otherwise)?),
            None => None,
        };
        Some(Self { arms, otherwise })
    }

    /// What holds for a row.
    fn chosen(&self, batch: &RecordBatch, row: usize) -> Result<Option<&V>, Unsure> {
        for (when, then) in &self.arms {
            if when.get(batch, row)? == Some(true) {
                return Ok(Some(then));
            }
        }
        Ok(self.otherwise.as_ref())
    }
}

impl<T: Number> Num<T> {
    fn new(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Self> {
        if let Some(column) = expr.downcast_ref::<Column>() {
            return (schema.fields().get(column.index())?.data_type() == &T::DATA_TYPE)
                .then(|| Self::Column(column.index()));
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return T::literal(literal.value()).map(Self::Literal);
        }
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            let operator = T::binary(*binary.op())?;
            let operands = (Self::new(binary.left(), schema)?, Self::new(binary.right(), schema)?);
            return Some(Self::Binary(operator, Box::new(operands)));
        }
        if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            return Some(Self::Call(T::negate, Box::new(Self::new(negative.arg(), schema)?)));
        }
        if let Some(case) = expr.downcast_ref::<CaseExpr>() {
            return Some(Self::Case(Box::new(Case::new(case, schema, |value| Self::new(value, schema))?)));
        }
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            return Self::convert(cast.expr(), schema);
        }
        let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
        match (call.name(), call.args()) {
            ("clamp", [x, low, high]) => {
                let args = [Self::new(x, schema)?, Self::new(low, schema)?, Self::new(high, schema)?];
                Some(Self::Clamp(Box::new(args)))
            }
            (name, [x]) => Some(Self::Call(T::function(name)?, Box::new(Self::new(x, schema)?))),
            _ => None,
        }
    }

    fn convert(from: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Self> {
        let data_type = from.data_type(schema).ok()?;
        if !T::converts(&data_type) {
            return None;
        }
        let source = match data_type {
            DataType::Int64 => Source::I64(Num::new(from, schema)?),
            DataType::Float32 => Source::F32(Num::new(from, schema)?),
            DataType::Float64 => Source::F64(Num::new(from, schema)?),
            _ => Source::Small(from.downcast_ref::<Column>()?.index()),
        };
        Some(Self::Convert(Box::new(source)))
    }

    fn get(&self, batch: &RecordBatch, row: usize) -> Cell<T::Native> {
        match self {
            Self::Column(at) => {
                let array =
                    batch.columns().get(*at).and_then(|array| array.as_primitive_opt::<T>()).ok_or(Unsure)?;
                Ok(array.is_valid(row).then(|| array.value(row)))
            }
            Self::Literal(value) => Ok(*value),
            Self::Binary(operator, operands) => {
                match (operands.0.get(batch, row)?, operands.1.get(batch, row)?) {
                    (Some(a), Some(b)) => operator(a, b).ok_or(Unsure).map(Some),
                    _ => Ok(None),
                }
            }
            Self::Call(function, x) => match x.get(batch, row)? {
                Some(x) => function(x).ok_or(Unsure).map(Some),
                None => Ok(None),
            },
            Self::Clamp(args) => {
                let [x, low, high] = args.as_ref();
                let (x, low, high) = (x.get(batch, row)?, low.get(batch, row)?, high.get(batch, row)?);
                Ok(x.map(|x| crate::udf::clamped_value(x, low, high)))
            }
            Self::Case(case) => match case.chosen(batch, row)? {
                Some(value) => value.get(batch, row),
                None => Ok(None),
            },
            Self::Convert(source) => source.get::<T>(batch, row),
        }
    }

    fn array(&self, batch: &RecordBatch) -> Result<ArrayRef, Unsure> {
        let (values, nulls) = cells(batch.num_rows(), |row| self.get(batch, row))?;
        Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
    }
}

impl Source {
    fn get<T: Number>(&self, batch: &RecordBatch, row: usize) -> Cell<T::Native> {
        let value = match self {
            Self::Small(at) => small_int(batch.columns().get(*at).ok_or(Unsure)?, row)?.map(T::from_i64),
            Self::I64(num) => num.get(batch, row)?.map(T::from_i64),
            Self::F32(num) => num.get(batch, row)?.map(|value| T::from_f64(value.into())),
            Self::F64(num) => num.get(batch, row)?.map(T::from_f64),
        };
        value.map_or(Ok(None), |value| value.ok_or(Unsure).map(Some))
    }
}

fn small_int(array: &ArrayRef, row: usize) -> Cell<i64> {
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        _ => return Err(Unsure),
    }))
}

/// An expression with text for each row.
#[derive(Debug)]
pub(crate) enum Text {
    Column(usize),
    Literal(Option<Box<str>>),
    Case(Box<Case<Text>>),
}

impl Text {
    fn new(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Self> {
        if let Some(column) = expr.downcast_ref::<Column>() {
            return (schema.fields().get(column.index())?.data_type() == &DataType::Utf8)
                .then(|| Self::Column(column.index()));
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return match literal.value() {
                ScalarValue::Utf8(value) => Some(Self::Literal(value.as_deref().map(Into::into))),
                _ => None,
            };
        }
        let case = expr.downcast_ref::<CaseExpr>()?;
        Some(Self::Case(Box::new(Case::new(case, schema, |value| Self::new(value, schema))?)))
    }

    fn get<'a>(&'a self, batch: &'a RecordBatch, row: usize) -> Cell<&'a str> {
        match self {
            Self::Column(at) => {
                let array =
                    batch.columns().get(*at).and_then(|array| array.as_string_opt::<i32>()).ok_or(Unsure)?;
                Ok(array.is_valid(row).then(|| array.value(row)))
            }
            Self::Literal(value) => Ok(value.as_deref()),
            Self::Case(case) => match case.chosen(batch, row)? {
                Some(value) => value.get(batch, row),
                None => Ok(None),
            },
        }
    }
}

/// An expression that holds or not for each row.
#[derive(Debug)]
pub(crate) enum Test {
    Column(usize),
    Literal(Option<bool>),
    And(Box<(Test, Test)>),
    Or(Box<(Test, Test)>),
    Not(Box<Test>),
    IsNull(Box<Fast>),
    IsNotNull(Box<Fast>),
    IsNan(Box<Num<Float64Type>>),
    Compare(fn(Ordering) -> bool, Box<Pair>),
    /// One of several texts, none of them null.
    In(Box<Text>, Vec<Box<str>>, bool),
    Case(Box<Case<Test>>),
}

/// What is compared.
#[derive(Debug)]
pub(crate) enum Pair {
    F64(Num<Float64Type>, Num<Float64Type>),
    F32(Num<Float32Type>, Num<Float32Type>),
    I64(Num<Int64Type>, Num<Int64Type>),
    Text(Text, Text),
}

impl Test {
    fn new(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Self> {
        if let Some(column) = expr.downcast_ref::<Column>() {
            return (schema.fields().get(column.index())?.data_type() == &DataType::Boolean)
                .then(|| Self::Column(column.index()));
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return match literal.value() {
                ScalarValue::Boolean(value) => Some(Self::Literal(*value)),
                _ => None,
            };
        }
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            let both =
                || Some(Box::new((Self::new(binary.left(), schema)?, Self::new(binary.right(), schema)?)));
            return match binary.op() {
                Operator::And => Some(Self::And(both()?)),
                Operator::Or => Some(Self::Or(both()?)),
                operator => Self::compare(*operator, binary.left(), binary.right(), schema),
            };
        }
        if let Some(not) = expr.downcast_ref::<NotExpr>() {
            return Some(Self::Not(Box::new(Self::new(not.arg(), schema)?)));
        }
        if let Some(is_null) = expr.downcast_ref::<IsNullExpr>() {
            return Some(Self::IsNull(Box::new(Fast::new(is_null.arg(), schema)?)));
        }
        if let Some(is_not_null) = expr.downcast_ref::<IsNotNullExpr>() {
            return Some(Self::IsNotNull(Box::new(Fast::new(is_not_null.arg(), schema)?)));
        }
        if let Some(case) = expr.downcast_ref::<CaseExpr>() {
            return Some(Self::Case(Box::new(Case::new(case, schema, |value| Self::new(value, schema))?)));
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>() {
            return Self::in_list(list, schema);
        }
        let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
        match (call.name(), call.args()) {
            ("isnan", [x]) => Some(Self::IsNan(Box::new(Num::new(x, schema)?))),
            _ => None,
        }
    }

    fn compare(
        operator: Operator,
        left: &Arc<dyn PhysicalExpr>,
        right: &Arc<dyn PhysicalExpr>,
        schema: &Schema,
    ) -> Option<Self> {
        let holds: fn(Ordering) -> bool = match operator {
            Operator::Eq => Ordering::is_eq,
            Operator::NotEq => Ordering::is_ne,
            Operator::Lt => Ordering::is_lt,
            Operator::LtEq => Ordering::is_le,
            Operator::Gt => Ordering::is_gt,
            Operator::GtEq => Ordering::is_ge,
            _ => return None,
        };
        let pair = match left.data_type(schema).ok()? {
            DataType::Float64 => Pair::F64(Num::new(left, schema)?, Num::new(right, schema)?),
            DataType::Float32 => Pair::F32(Num::new(left, schema)?, Num::new(right, schema)?),
            DataType::Int64 => Pair::I64(Num::new(left, schema)?, Num::new(right, schema)?),
            DataType::Utf8 => Pair::Text(Text::new(left, schema)?, Text::new(right, schema)?),
            _ => return None,
        };
        Some(Self::Compare(holds, Box::new(pair)))
    }

    fn in_list(list: &InListExpr, schema: &Schema) -> Option<Self> {
        let value = Text::new(list.expr(), schema)?;
        let listed = list.list().iter().map(|item| match Text::new(item, schema)? {
            Text::Literal(Some(text)) => Some(text),
            _ => None,
        });
        Some(Self::In(Box::new(value), listed.collect::<Option<Vec<_>>>()?, list.negated()))
    }

    fn get(&self, batch: &RecordBatch, row: usize) -> Cell<bool> {
        Ok(match self {
            Self::Column(at) => {
                let array =
                    batch.columns().get(*at).and_then(|array| array.as_boolean_opt()).ok_or(Unsure)?;
                array.is_valid(row).then(|| array.value(row))
            }
            Self::Literal(value) => *value,
            Self::And(both) => match both.0.get(batch, row)? {
                Some(false) => Some(false),
                left => match (left, both.1.get(batch, row)?) {
                    (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                },
            },
            Self::Or(both) => match both.0.get(batch, row)? {
                Some(true) => Some(true),
                left => match (left, both.1.get(batch, row)?) {
                    (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                },
            },
            Self::Not(test) => test.get(batch, row)?.map(|holds| !holds),
            Self::IsNull(value) => Some(value.is_null(batch, row)?),
            Self::IsNotNull(value) => Some(!value.is_null(batch, row)?),
            Self::IsNan(num) => num.get(batch, row)?.map(f64::is_nan),
            Self::Compare(holds, pair) => pair.compare(batch, row)?.map(holds),
            Self::In(text, listed, negated) => {
                text.get(batch, row)?.map(|text| listed.iter().any(|known| **known == *text) != *negated)
            }
            Self::Case(case) => match case.chosen(batch, row)? {
                Some(value) => value.get(batch, row)?,
                None => None,
            },
        })
    }
}

impl Pair {
    fn compare(&self, batch: &RecordBatch, row: usize) -> Cell<Ordering> {
        fn of<T: Number>(a: &Num<T>, b: &Num<T>, batch: &RecordBatch, row: usize) -> Cell<Ordering> {
            Ok(a.get(batch, row)?.zip(b.get(batch, row)?).map(|(a, b)| T::compare(a, b)))
        }
        match self {
            Self::F64(a, b) => of(a, b, batch, row),
            Self::F32(a, b) => of(a, b, batch, row),
            Self::I64(a, b) => of(a, b, batch, row),
            Self::Text(a, b) => Ok(a.get(batch, row)?.zip(b.get(batch, row)?).map(|(a, b)| a.cmp(b))),
        }
    }
}
