"""A template for `sam local` whose functions run from where they are edited.

`sam build` copies a function's code beside its packages; an edit is then seen after the next build
alone. Here the code stays in functions/, and the packages become a layer: what is edited answers
with the next invocation, and a warm container is replaced by sam itself, which watches the folder.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from samtranslator.yaml_helper import yaml_parse

FUNCTION = "AWS::Serverless::Function"
LAYER = "AWS::Serverless::LayerVersion"


def write_live_template(source: Path, built: Path, folder: Path) -> Path:
    """The template, written into `folder`.

    Args:
        source: template.yaml as it is edited.
        built: the template that `sam build` made of it, beside what it built.
        folder: for the template, and for the packages of each function.
    """
    edited = yaml_parse(source.read_text(encoding="utf-8"))["Resources"]
    document = yaml_parse(built.read_text(encoding="utf-8"))
    layers: dict[str, Any] = {}
    for name, resource in document["Resources"].items():
        properties = resource.get("Properties", {})
        if resource["Type"] == LAYER:
            properties["ContentUri"] = str((built.parent / properties["ContentUri"]).resolve())
        if resource["Type"] != FUNCTION:
            continue
        code = (source.parent / edited[name]["Properties"]["CodeUri"]).resolve()
        artifacts = (built.parent / properties["CodeUri"]).resolve()
        properties["CodeUri"] = str(code)
        if artifacts != code and (packages := _packages(artifacts, code, folder / name)):
            layers[f"{name}Packages"] = {
                "Type": LAYER,
                "Properties": {"ContentUri": str(packages.resolve())},
            }
            # SAM adds them to the layers of Globals.
            properties["Layers"] = [*properties.get("Layers", []), {"Ref": f"{name}Packages"}]
    document["Resources"] |= layers
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "template.yaml"
    target.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return target


def built_layers(built: Path) -> list[Path]:
    """The folders of the layers that `sam build` made, whatever they are called."""
    resources = yaml_parse(built.read_text(encoding="utf-8"))["Resources"].values()
    return [
        (built.parent / resource["Properties"]["ContentUri"]).resolve()
        for resource in resources
        if resource["Type"] == LAYER
    ]


def _packages(artifacts: Path, code: Path, folder: Path) -> Path | None:
    """What was installed for the function, laid out as a layer; None where nothing was."""
    own = {path.name for path in code.iterdir()}
    installed = [path for path in artifacts.iterdir() if path.name not in own]
    if not installed:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "python").mkdir(parents=True)
    for path in installed:
        if path.is_dir():
            shutil.copytree(path, folder / "python" / path.name, copy_function=os.link)
        else:
            os.link(path, folder / "python" / path.name)
    return folder
