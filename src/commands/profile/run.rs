//! What a model executes on images.

use super::{Arguments, Ran, open};
use crate::commands::energy;
use anyhow::Result;
use tch::Tensor;
use zoo::backbones::{InputForm, Variant};
use zoo::counting::{self, CountingError, Execution, batches, spread};
use zoo::energy::Average;
use zoo::eval::data::{DataSet, OpenOptions, drawn};
use zoo::eval::pipeline::Images;
use zoo::runtime::Session;

/// Images of one call.
const BATCH: usize = 4;

/// Runs the form that runs by default: the fused one, whose kernels skip.
pub(super) fn run(arguments: &Arguments, variant: &'static Variant) -> Result<Ran> {
    let session = open(arguments, variant, false)?;
    let mut execution = Execution::default();
    let data = each(arguments, &session, |x, images| {
        execution.add(&session.work(x)?, images);
        Ok(())
    })?;
    Ok(Ran {
        data,
        form: if session.options().fuse {
            "fused"
        } else {
            "trained"
        },
        trained: arguments.run.source(session.variant())?.trained() && !session.new_head(),
        executed: execution.of_module(""),
        execution,
    })
}

/// The mean counts of a network with neurons, and what it ran on; `None` of an ordinary one.
pub(super) fn spikes(
    arguments: &Arguments,
    session: &Session,
) -> Result<Option<(Average, String)>> {
    if session
        .work(&energy::formula_input(session))?
        .neurons
        .is_empty()
    {
        return Ok(None);
    }
    let mut average = Average::default();
    let data = each(arguments, session, |x, _| {
        counting::add(session, x, &mut average)
    })?;
    Ok(Some((average, data)))
}

/// Batches of the images, or random numbers where the model takes something else; says which.
pub(super) fn each(
    arguments: &Arguments,
    session: &Session,
    mut f: impl FnMut(&Tensor, u64) -> Result<(), CountingError>,
) -> Result<String> {
    let rgb = session.input_form() == InputForm::Images && session.input_channels() == 3;
    if !rgb {
        anyhow::ensure!(
            arguments.images.is_none(),
            "{} takes {} of {} channels, not images: leave --images away",
            session.variant().name,
            session.input_form(),
            session.input_channels()
        );
        let x = energy::formula_input(session);
        f(&x, 1)?;
        return Ok(format!("uniform random numbers {:?}", x.size()));
    }
    let options = OpenOptions {
        need_labels: false,
        ..OpenOptions::default()
    };
    let set = match &arguments.images {
        Some(dir) => DataSet::open(dir, &options)?,
        None => drawn(),
    };
    let images = Images {
        transform: arguments.run.transform(session.variant()),
    };
    let samples = spread(&set.samples, arguments.limit.max(1));
    for x in batches(&images, &samples, BATCH) {
        let x = x?;
        f(&x, x.size()[0].unsigned_abs())?;
    }
    Ok(set.describe())
}
