"""Every number that the published scorer gives on the published 1B and 8B predictions."""

from __future__ import annotations

import json

import pytest

from distime.benchmarks import score

SIMPLE = "simple (Charades, ANet, QVH, NExT-GQA)"


def close(expected: object) -> object:
    return pytest.approx(expected, abs=1e-6)


def test_anet(shared, size, reference):
    result = score(
        "anet",
        shared / f"predictions_{size}/ANet-Caption/results.json",
        shared / "annotations/anet/val_2.json",
        published=True,
    )
    published = reference["ANet-Caption"][size]
    as_run = {f"R1@{t}_float32": 100 * published[f"R@1IOU{t}"] for t in (0.3, 0.5, 0.7)}
    assert result.published_as_run == close({**as_run, "mIoU": 100 * published["mIOU"]})
    exact = reference["_variants"][SIMPLE]["ANet-Caption"][size]
    headline = {f"R1@{t}": exact[f"R1@{t} percent eps"] for t in (0.3, 0.5, 0.7)}
    assert result.metrics == close({**headline, "mIoU": exact["mIoU (percent) eps"]})
    ties = sum(exact[f"hits@{t} noeps"] - exact[f"hits@{t} eps"] for t in (0.3, 0.5, 0.7))
    assert result.counts["ties_below_threshold"] == ties


@pytest.mark.parametrize("with_annotation", [True, False])
def test_qvhighlights(shared, size, reference, with_annotation, monkeypatch, tmp_path):
    monkeypatch.setenv("DISTIME_HOME", str(tmp_path))
    gt = shared / "annotations/qvhighlights/val.json" if with_annotation else None
    result = score(
        "qvh", shared / f"predictions_{size}/QVHighlight/results.json", gt, published=True
    )
    published = dict(reference["QVHighlights"][size])
    assert result.counts["queries"] == published.pop("total")
    as_run = {
        "R1-average_of_rounded": published.pop("R1-avg(agg_metrics)"),
        "mIoU": 100 * published.pop("mIoU(fraction)"),
        "invalid_predictions": 100 * published.pop("invalid_predictions"),
        **{f"MR-{part}-mAP_of_all_lengths": published["mAP-average"]
           for part in ("full", "short", "middle", "long")},
        **{f"{name}_rounded": value for name, value in published.items()},
    }  # fmt: skip
    assert result.published_as_run == close(as_run)

    exact = reference["_variants"][SIMPLE]["QVHighlights"][size]
    metrics = result.metrics
    for t, value in exact["R1 unrounded"].items():
        assert metrics[f"R1@{t}"] == close(value)
    for t, value in exact["mAP unrounded via reference AP fn"].items():
        assert metrics[f"mAP@{t}"] == close(value)
    assert metrics["R1-average"] == close(exact["R1-avg unrounded"])
    assert metrics["mAP-average"] == metrics["MR-full-mAP"] == close(exact["mAP-average unrounded"])
    assert metrics["mIoU"] == close(exact["mIoU best-window (percent)"])
    for part in ("short", "middle", "long"):
        split = exact[f"official-style length split mAP {part} (NOT in ref)"]
        assert result.counts[f"queries_{part}"] == split["n"]
        assert metrics[f"MR-{part}-mAP"] == close(split["avg"])
        assert metrics[f"MR-{part}-mAP@0.5"] == close(split["at05"])
    hits = reference["_variants"]["exact rational arithmetic"][f"QVH {size}"]["hits"]
    lost = sum(hits[t] - n for t, n in exact["R1 hits"].items())
    assert result.counts["ties_below_threshold"] == lost


def test_nextgqa(shared, size, reference):
    folder = shared / f"predictions_{size}/NExtGQA"
    gt = shared / "annotations/nextgqa"
    result = score("nextgqa", folder / "result.json", gt, published=True)
    published = reference["NExT-GQA"][size]
    names = {
        "Acc@GQA": "AccGQA",
        "mIoP": "mIoP",
        "IoP@0.3": "TIoP_03",
        "IoP@0.5": "TIoP_05",
        "mIoU": "mIoU",
        "IoU@0.3": "TIoU_03",
        "IoU@0.5": "TIoU_05",
        "Acc@QA": "QA_Acc",
    }
    groups = ("Why", "How", "Bef&Aft", "When", "Acc_C", "Acc_T")
    names |= {f"Acc@QA_{group.removeprefix('Acc_')}": f"QA_{group}" for group in groups}
    assert result.metrics == close({ours: published[name] for ours, name in names.items()})
    as_run = {
        (ours if ours.startswith("Acc@QA") else f"{ours}_without_missing"): published[name]
        for ours, name in names.items()
    }
    assert result.published_as_run == close(as_run)
    assert result.counts["questions"] == published["cnt"]
    for group in groups:
        count = result.counts[f"questions_{group.removeprefix('Acc_')}"]
        assert count == published[f"QA_count_{group}"]
    halves = score("nextgqa", [folder / "result_qa.json", folder / "result_gd.json"], gt)
    assert halves.metrics == result.metrics


def test_mvbench(shared, size, reference):
    folder = shared / f"predictions_{size}/MVBench"
    published = reference["MVBench"][size]
    released = {k.removesuffix(" (released)"): v for k, v in published.items() if "(rel" in k}
    assert score("mvbench", folder / "MVBench_result_final.json").metrics == close(released)
    result = score("mvbench", folder / "MVBench.json", published=True)
    again = {k.split(" (rec")[0]: v for k, v in published.items() if "(recomputed" in k}
    again["Avg"] = again.pop("raw 500 overall")
    assert result.metrics == close(again)
    assert result.published_as_run == close({f"{k}_lenient": v for k, v in again.items()})


@pytest.mark.parametrize("frames", [16, 32])
def test_longvideobench(shared, size, reference, frames):
    if (size, frames) == ("8B", 32):
        pytest.skip("the 8B predictions are of 16 frames")
    published = reference["LongVideoBench"][f"{size}_{frames}frame"]
    name = f"{frames}frame_result.json" if size == "1B" else "result.json"
    result = score(
        "longvideobench",
        shared / f"predictions_{size}/LongVideoBench" / name,
        shared / "annotations/longvideobench/lvb_val.json",
        published=True,
    )
    overall = 100 * published["Accuracy_overall (fraction, released)"]
    expected = {k.split(" accuracy")[0]: v for k, v in published.items() if "NOT in ref" in k}
    assert result.metrics == close({"Accuracy_overall": overall, **expected})
    assert result.published_as_run == close({"Accuracy_overall_lenient": overall})
    assert result.counts["questions"] == published["n"]
    assert result.counts["missing"] == result.counts["truth_differs"] == 0


YOUCOOK2 = {"CIDEr": "CIDER", "METEOR": "METEOR", "F1": "F1_Score"} | {
    "Precision": "Precision_Mean",
    "Recall": "Recall_Mean",
}
YOUCOOK2 |= {f"{name}@{t}": f"{name}@{t}" for name in ("Precision", "Recall") for t in (0.3, 0.5)}
YOUCOOK2 |= {f"{name}@{t}": f"{name}@{t}" for name in ("Precision", "Recall") for t in (0.7, 0.9)}


@pytest.mark.java
def test_youcook2(shared, size, reference):
    result = score(
        "youcook2_dvc",
        shared / f"predictions_{size}/YouCook2-DVC/results.json",
        shared / "annotations/youcook2_dvc/val.caption_coco_format.json",
        published=True,
    )
    published = reference["YouCook2-DVC"][size]
    as_run = {ours: 100 * published[name] for ours, name in YOUCOOK2.items()}
    as_run |= {"n_preds": published["n_preds"], "SODA_c_1": 100 * published["SODA_c_1"]}
    as_run["SODA_c_permuted"] = 100 * published["SODA_c_2"]
    as_run["Para_CIDEr"] = 100 * published["Para_CIDER"]
    as_run["Para_METEOR"] = 100 * published["Para_METEOR"]
    assert result.published_as_run == close(as_run)
    natural = reference["_variants"][f"yc2_var_{size}"]["soda_natural_order"]
    headline = {k: v for k, v in as_run.items() if k not in ("SODA_c_permuted", "SODA_c_1")}
    assert result.metrics == close({**headline, "SODA_c": 100 * natural["SODA_c_2"]})


@pytest.mark.java
def test_youcook2_without_a_video(shared, size, reference, write):
    """Missing predictions: zero in every dense metric, and published paragraphs shift."""
    if size != "1B":
        pytest.skip("once is enough")
    predictions = json.loads((shared / f"predictions_{size}/YouCook2-DVC/results.json").read_text())
    gt = shared / "annotations/youcook2_dvc/val.caption_coco_format.json"
    first = json.loads(gt.read_text())["annotations"][0]["image_id"]
    del predictions[first]
    result = score("youcook2_dvc", write("p.json", predictions), gt, published=True)
    dropped = reference["_variants"][f"yc2_var_{size}"]["drop_first_video"]
    as_run = result.published_as_run
    for ours, name in YOUCOOK2.items():
        assert as_run[ours] == result.metrics[ours] == close(100 * dropped[name])
    assert as_run["SODA_c_permuted"] == close(100 * dropped["SODA_c_2"])
    assert as_run["n_preds"] == close(dropped["n_preds"])
    assert as_run["Para_CIDEr_misaligned"] == close(100 * dropped["Para_CIDER"])
    assert as_run["Para_METEOR_misaligned"] == close(100 * dropped["Para_METEOR"])
    # The headline keeps every paragraph with its own reference.
    assert result.metrics["Para_CIDEr"] > 7
    assert result.counts["missing"] == 1


@pytest.mark.java
def test_anet_dvc(shared, size, reference):
    result = score(
        "anet_dvc",
        shared / f"predictions_{size}/ANet-Caption-DVC/results.txt",
        shared / "annotations/anet/val_2.json",
        published=True,
    )
    published = reference["ANet-Caption-DVC"][size]
    as_run = {
        f"{name.replace('soda_c', 'SODA_c').split(' ')[0]}_seconds_as_percent": 100 * value
        for name, value in published.items()
        if name.endswith("(fraction)")
    }
    assert result.published_as_run == close(as_run)
    variants = reference["_variants"][f"anet_var_{size}"]
    seconds = variants["seconds_as_seconds"]["full"]
    for name, value in {**seconds["eval_soda"], **seconds["eval_dvc"]}.items():
        if not name.startswith(("Rouge", "Bleu")):
            assert result.metrics[name.replace("soda_c", "SODA_c")] == close(100 * value)
    before, after = variants["merge counts"]
    assert result.counts["events"] == before
    assert result.counts["events_after_merging"] == after
    assert result.counts["meteor_alignments"] < result.counts["meteor_calls_one_by_one"]
