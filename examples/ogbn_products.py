"""GraphSAGE on ogbn-products: 3 layers of 256, sampled 15,10,5, as in OGB's own neighbour-sampling baseline.

    python examples/ogbn_products.py dataset          ten seeds; --seeds, --epochs, --work, --memory

`dataset` is the folder that ogb keeps its downloads in; what is not there, ogb downloads.
"""

from _leaderboard import Entry, run

if __name__ == "__main__":
    run(
        Entry(
            dataset="ogbn-products",
            model="sage",
            hidden=256,
            dropout=0.5,
            fanouts=(15, 10, 5),
            batch_size=1024,
            epochs=20,
            lr=0.003,
        )
    )
