//! The functions that expressions may call.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::DataType;
use datafusion_common::{
    Result, TableReference,
    config::ConfigOptions,
    plan_err,
    tree_node::{TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{
    AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF,
    expr::ScalarFunction,
    planner::{ContextProvider, ExprPlanner},
};

use crate::udf::{Clamp, FloatFunction};

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
pub(crate) fn refuse_count(call: &ScalarFunction) -> Option<String> {
    let (at, count) = counted(call)?;
    let name = call.name();
    let Some(count) = count.filter(|count| *count <= MAX_COUNT) else {
        return Some(format!("`{name}` takes a plain number up to {MAX_COUNT} as its argument {}", at + 1));
    };
    // Each is bounded alone; one inside the other comes to as much as both multiply to.
    let inside = call.args.iter().map(repeated).max().unwrap_or(1);
    let all = count.max(1).saturating_mul(inside);
    (all > MAX_COUNT).then(|| format!("`{name}` and what it repeats come to more than {MAX_COUNT} together"))
}

/// For a call that repeats a value: the argument that counts, and how often, where that is a plain number.
fn counted(call: &ScalarFunction) -> Option<(usize, Option<i64>)> {
    let &(_, at) = COUNTED.iter().find(|(counted, _)| *counted == call.name())?;
    let count = match call.args.get(at)? {
        Expr::Literal(value, _) => value.to_string().parse::<i64>().ok(),
        _ => None,
    };
    Some((at, count))
}

/// How often an expression repeats something, at most.
fn repeated(expr: &Expr) -> i64 {
    let mut inside = 1;
    let _ = expr.apply_children(|child| {
        inside = inside.max(repeated(child));
        Ok(TreeNodeRecursion::Continue)
    });
    match expr {
        Expr::ScalarFunction(call) => {
            let count = counted(call).map_or(1, |(_, count)| count.unwrap_or(i64::MAX));
            count.max(1).saturating_mul(inside)
        }
        _ => inside,
    }
}
