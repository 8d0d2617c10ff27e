//! `fleet roles`: the templates of jobs, and what each asks for.

use crate::args::Roles;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::roles::{RoleDetail, RoleRow, RoleRows};
use crate::project::Project;
use crate::roles::Catalogue;

/// Lists them, or shows one.
pub(crate) fn run(args: &Roles, cx: &mut Context) -> Outcome {
    let project = Project::of(cx.environment.folder.as_deref())?;
    let all = Catalogue::load(Some(&cx.settings.home.roles()), project.as_ref());
    match &args.what {
        Some(crate::args::RolesWhat::Show { role }) => {
            cx.show(&RoleDetail(all.get(role)?.clone()))?
        }
        None => {
            let rows = all.all().map(|(name, role)| RoleRow::of(name, role));
            let stray = all.stray().iter().map(RoleRow::stray);
            cx.show(&RoleRows(rows.chain(stray).collect()))?;
        }
    }
    Ok(0)
}
