//! The functions that expressions may call.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
    datatypes::{
        DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use datafusion_common::{Result, TableReference, config::ConfigOptions, exec_err, plan_err};
use datafusion_expr::{
    AggregateUDF, ColumnarValue, Expr, HigherOrderUDF, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TableSource, Volatility, WindowUDF,
    planner::{ContextProvider, ExprPlanner},
    type_coercion::binary::type_union_resolution,
};

/// What a name in front of a parenthesis stands for.
pub(crate) enum Lookup {
    /// A function of its arguments alone.
    Known,
    /// A function whose answer changes from call to call.
    Changing,
    /// A function over many rows.
    Aggregate,
    /// Nothing.
    Unknown,
}

/// Every function an expression may call, and what the SQL planner asks for beside them.
pub(crate) struct Functions {
    scalar: BTreeMap<String, Arc<ScalarUDF>>,
    changing: Vec<String>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    config: Arc<ConfigOptions>,
}

/// The one registry of the process; it holds no state.
pub(crate) fn functions() -> &'static Functions {
    static FUNCTIONS: LazyLock<Functions> = LazyLock::new(Functions::new);
    &FUNCTIONS
}

/// Functions that speak of a query engine and its files, which are not there, or that make rows out of nothing.
const LEFT_OUT: &[&str] = &[
    "arrow_field",
    "arrow_metadata",
    "file_row_index",
    "generate_series",
    "input_file_name",
    "range",
    "version",
    "with_metadata",
];

/// Names that people expect from SQL and that see more than one row.
const AGGREGATES: &[&str] = &[
    "any_value",
    "approx_distinct",
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "max",
    "mean",
    "median",
    "min",
    "ntile",
    "percent_rank",
    "percentile_cont",
    "quantile",
    "rank",
    "row_number",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var",
    "var_pop",
    "var_samp",
    "variance",
];

impl Functions {
    fn new() -> Self {
        let all = datafusion_functions::all_default_functions()
            .into_iter()
            .chain(datafusion_functions_nested::all_default_nested_functions())
            .chain([
                Arc::new(ScalarUDF::from(FloatFunction::log1p())),
                Arc::new(ScalarUDF::from(FloatFunction::expm1())),
                Arc::new(ScalarUDF::from(Clamp::new())),
            ]);
        let mut scalar = BTreeMap::new();
        let mut changing = Vec::new();
        for function in all {
            let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
            for name in names.map(str::to_lowercase).filter(|name| !LEFT_OUT.contains(&name.as_str())) {
                if function.signature().volatility == Volatility::Immutable {
                    scalar.insert(name, Arc::clone(&function));
                } else {
                    changing.push(name);
                }
            }
        }
        let planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions_nested::planner::NestedFunctionPlanner),
            Arc::new(datafusion_functions_nested::planner::FieldAccessPlanner),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        ];
        Self { scalar, changing, planners, config: Arc::new(ConfigOptions::default()) }
    }

    /// What `name` (in lower case) stands for.
    pub(crate) fn lookup(&self, name: &str) -> Lookup {
        if self.scalar.contains_key(name) {
            Lookup::Known
        } else if self.changing.iter().any(|changing| changing == name) {
            Lookup::Changing
        } else if AGGREGATES.contains(&name) {
            Lookup::Aggregate
        } else {
            Lookup::Unknown
        }
    }

    /// Every name that may be called.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.scalar.keys().map(String::as_str)
    }

    /// The options every expression is typed and run with.
    pub(crate) fn config(&self) -> &Arc<ConfigOptions> {
        &self.config
    }
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("there is no table `{name}`: an expression sees the columns of its own row")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(name).map(Arc::clone)
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.config
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A function of one float that DataFusion lacks. Its result is, to the bit, that of the Rust function of that name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatFunction {
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
    fn log1p() -> Self {
        Self::new("log1p", FloatKind::Log1p)
    }

    /// `exp(x) - 1`, exact for small `x`.
    fn expm1() -> Self {
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
struct Clamp {
    signature: Signature,
}

impl Clamp {
    fn new() -> Self {
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

fn clamp<T>(x: &ArrayRef, low: &ArrayRef, high: &ArrayRef) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: PartialOrd,
{
    let arrays = [x, low, high].map(|array| array.as_primitive_opt::<T>());
    let [Some(x), Some(low), Some(high)] = arrays else {
        return exec_err!("clamp takes arguments of one type");
    };
    let values: Vec<T::Native> = (0..x.len())
        .map(|row| {
            let value = x.value(row);
            if low.is_valid(row) && value < low.value(row) {
                low.value(row)
            } else if high.is_valid(row) && value > high.value(row) {
                high.value(row)
            } else {
                value
            }
        })
        .collect();
    let out =
        PrimitiveArray::<T>::new(values.into(), x.nulls().cloned()).with_data_type(x.data_type().clone());
    Ok(Arc::new(out))
}

/// For functions that repeat a value: the argument that counts, which must be a plain number so that no row can ask
/// for gigabytes.
const COUNTED: &[(&str, usize)] = &[
    ("array_repeat", 1),
    ("array_resize", 1),
    ("list_repeat", 1),
    ("list_resize", 1),
    ("lpad", 1),
    ("repeat", 1),
    ("rpad", 1),
];

/// How often such a function may repeat.
const MAX_COUNT: i64 = 65_536;

/// What is wrong with how a call counts, if it repeats a value.
pub(crate) fn refuse_count(name: &str, args: &[Expr]) -> Option<String> {
    let &(_, at) = COUNTED.iter().find(|(counted, _)| *counted == name)?;
    let count = match args.get(at)? {
        Expr::Literal(value, _) => value.to_string().parse::<i64>().ok(),
        _ => None,
    };
    match count {
        Some(count) if count <= MAX_COUNT => None,
        _ => Some(format!("`{name}` takes a plain number up to {MAX_COUNT} as its argument {}", at + 1)),
    }
}
