//! Stage: the list of what the program is made of, in CycloneDX 1.5.
//!
//! Guarantees: it has each package that is linked into the program for this target, and no other: cargo's own resolver
//! tells which. Packages that only run while it is built, such as procedural macros, are not in it. It has no time and no
//! random number.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use cargo_metadata::{DependencyKind, Package, PackageId};
use cyclonedx_bom::external_models::spdx::SpdxExpression;
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata;
use cyclonedx_bom::prelude::{Bom, NormalizedString, Purl, SpecVersion, Validate as _};

use crate::release::{NAME, PACKAGE, Release, output_of};

/// Makes the list.
///
/// # Errors
///
/// If cargo cannot tell what is linked, or a package has an invalid name, version or licence.
pub(crate) fn json(release: &Release) -> anyhow::Result<Vec<u8>> {
    let linked = linked(release)?;
    let is_linked =
        |package: &&Package| linked.contains(&(package.name.to_string(), package.version.to_string()));
    let packages: BTreeMap<&PackageId, &Package> =
        release.metadata.packages.iter().filter(is_linked).map(|package| (&package.id, package)).collect();
    ensure!(packages.len() == linked.len(), "cargo tree and cargo metadata know different packages");

    let mut components = Vec::new();
    for package in packages.values().filter(|package| *package.name != PACKAGE) {
        components.push(component(package, Classification::Library)?);
    }
    components.sort_by(|one, other| one.bom_ref.cmp(&other.bom_ref));
    let mut program = component(release.package()?, Classification::Application)?;
    program.name = NormalizedString::new(NAME);
    let bom = Bom {
        spec_version: SpecVersion::V1_5,
        metadata: Some(Metadata { component: Some(program), ..Metadata::default() }),
        components: Some(Components(components)),
        dependencies: Some(dependencies(release, &packages)?),
        serial_number: None,
        ..Bom::default()
    };
    let validation = bom.validate_version(SpecVersion::V1_5);
    ensure!(validation.passed(), "the list of packages is not valid CycloneDX: {validation:?}");
    let mut json = Vec::new();
    bom.output_as_json_v1_5(&mut json).context("write the list of packages")?;
    json.push(b'\n');
    Ok(json)
}

/// The names and versions of the packages that cargo links into the program.
fn linked(release: &Release) -> anyhow::Result<BTreeSet<(String, String)>> {
    let mut cargo = release.cargo();
    cargo.args(["tree", "--locked", "--package", PACKAGE, "--target", &release.target]);
    cargo.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    let packages = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    Ok(output_of(&mut cargo)?.lines().filter_map(packages).collect())
}

fn component(package: &Package, kind: Classification) -> anyhow::Result<Component> {
    let context = || format!("describe the package {} {}", package.name, package.version);
    let version = package.version.to_string();
    let purl = Purl::new("cargo", &package.name, &version).with_context(context)?;
    let mut component = Component::new(kind, &package.name, &version, Some(purl.to_string()));
    component.purl = Some(purl);
    component.description = package.description.as_deref().map(NormalizedString::new);
    component.licenses = package.license.as_deref().map(|license| {
        // An old spelling of cargo's.
        let expression = SpdxExpression::new(&license.replace('/', " OR "));
        Licenses(vec![LicenseChoice::Expression(expression)])
    });
    Ok(component)
}

/// What each package is linked with.
fn dependencies(
    release: &Release,
    packages: &BTreeMap<&PackageId, &Package>,
) -> anyhow::Result<Dependencies> {
    let reference = |package: &Package| -> anyhow::Result<String> {
        Ok(Purl::new("cargo", &package.name, &package.version.to_string())?.to_string())
    };
    let resolve = release.metadata.resolve.as_ref().context("cargo resolved no dependencies")?;
    let mut dependencies = Vec::new();
    for node in &resolve.nodes {
        let Some(package) = packages.get(&node.id) else { continue };
        let normal = node
            .deps
            .iter()
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        let linked = normal.filter_map(|dependency| packages.get(&dependency.pkg));
        let mut linked = linked.map(|package| reference(package)).collect::<anyhow::Result<Vec<_>>>()?;
        linked.sort();
        dependencies.push(Dependency { dependency_ref: reference(package)?, dependencies: linked });
    }
    dependencies.sort_by(|one, other| one.dependency_ref.cmp(&other.dependency_ref));
    Ok(Dependencies(dependencies))
}
