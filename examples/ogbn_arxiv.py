"""GraphSAGE on ogbn-arxiv, citations made undirected: 3 layers of 256, sampled 15,10,5.

    python examples/ogbn_arxiv.py dataset          ten seeds; --seeds, --epochs, --work, --memory

`dataset` is the folder that ogb keeps its downloads in; what is not there, ogb downloads.
The baselines of OGB train this model on the whole graph for 500 epochs.
"""

from _leaderboard import Entry, run

if __name__ == "__main__":
    run(
        Entry(
            dataset="ogbn-arxiv",
            model="sage",
            hidden=256,
            dropout=0.5,
            fanouts=(15, 10, 5),
            batch_size=1024,
            epochs=30,
            lr=0.003,
            undirected=True,
            memory="4GiB",
        )
    )
