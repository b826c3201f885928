//! Columns that are watched together: what is learned of them, and what is known of them.

use std::{path::Path, sync::Arc};

use millstream_monitor::{
    Layout, Pane, ReferenceSpec, WatchSpec,
    multivariate::{MultivariateSpec, Reconstruction},
    report::MultivariateReport,
};

use super::watched::{EdgeWatch, GraphWatch};
use crate::project::chain;

/// What the numeric columns of an edge are compared with together, if they are. `file` is the reference in the folder `root`, if it
/// could be read: what is wrong with it is said already.
pub(super) fn learned(
    root: &Path,
    watch: &WatchSpec,
    file: Option<&Path>,
    layout: &Layout,
) -> Result<Option<Arc<Reconstruction>>, String> {
    let Some(settings) = watch.multivariate.as_ref().and_then(MultivariateSpec::settings) else {
        return Ok(None);
    };
    if matches!(watch.reference, None | Some(ReferenceSpec::Past(_))) {
        return Err("it is learned from the rows of a training set; name one as `reference`".to_owned());
    }
    let Some(file) = file else { return Ok(None) };
    let path = millstream_featurestore::inside(root, &file.to_string_lossy());
    let path = path.map_err(|problem| problem.to_string())?;
    let fitted = Reconstruction::of_file(&path, &layout.numeric(), &settings);
    fitted.map(|fitted| Some(Arc::new(fitted))).map_err(|error| chain(&error))
}

/// What is known of a graph's columns that are watched together, from the counts of a stretch of time.
pub(super) fn rebuilt(watch: &GraphWatch, over: &Pane) -> Vec<MultivariateReport> {
    let report = |edge: &EdgeWatch| {
        let (pane, least) = (over.edges.get(&edge.edge), edge.criterion.min_rows);
        Some(edge.reconstruction.as_ref()?.report(&edge.edge, pane, least))
    };
    watch.edges.iter().filter_map(report).collect()
}
