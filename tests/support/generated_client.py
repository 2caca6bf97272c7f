"""Request predictions through a client that openapi-python-client has written to this folder, and print the answers."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

CHURN: dict[str, Any] = {"age": 41, "balance": 10.5, "country": "ES", "channel": "web", "active": True}
KINDS = {"age": "INT64", "balance": "FP64", "country": "BYTES", "channel": "BYTES", "active": "BOOL"}


def main(package: str, url: str) -> None:
    models = importlib.import_module(f"{package}.models")
    client = importlib.import_module(f"{package}.client").Client(url)

    def call(name: str, **words: Any) -> Any:
        return importlib.import_module(f"{package}.api.{name}").sync(client=client, **words)

    record = models.ChurnRecord.from_dict(CHURN)
    rows = models.InvocationDataframeRecordsDataframeRecordsItem.from_dict(CHURN)
    tensors = [
        models.Tensor(name, models.TensorDatatype(kind), [1], data=[CHURN[name]]) for name, kind in KINDS.items()
    ]
    said = {
        "one": call("churn.predict_churn", body=record),
        "many": call("churn.predict_churn", body=models.ChurnRecords([record, record])),
        "query": call("churn.predict_churn_by_query", **{**CHURN, "country": models.ChurnRecordCountry("ES")}),
        "tensors": call("open_inference_protocol.post_v2_models_churn_infer", body=models.TensorRequest(tensors)),
        "mlflow": call("m_lflow_and_sage_maker.post_invocations", body=models.InvocationDataframeRecords([rows])),
        "wrong": call("churn.predict_churn", body=models.ChurnRecord.from_dict({**CHURN, "age": 200})),
        "models": call("models.list_models"),
    }
    print(json.dumps({name: answer.to_dict() for name, answer in said.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
