"""The first steps with the client.

    datastore-node & python first_steps.py [port]

The keys status:alice and status:bob hold "active" beforehand.
"""

import sys

from datastore.connector import DatastoreConnector

port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
with DatastoreConnector("127.0.0.1", port) as beforehand:
    beforehand.bulk_set({"status:alice": "active", "status:bob": "active", "status:eve": "gone"})

client = DatastoreConnector("127.0.0.1", port)
client.set("username", "alice"); print(client.get("username"))      # alice
client.delete("username"); print(client.get("username"))            # None
client.bulk_set([("user:1", "Alice"), ("user:2", "Bob")])
client.set("bio", "Software engineer passionate about databases")
print(client.search_text("databases"))                              # ['bio']
client.add_vector("doc1_embedding", [1.0, 0.2, 0.3]); client.add_vector("doc2_embedding", [0.9, 0.3, 0.2])
print(client.vector_search([1.0, 0.2, 0.3], top_k=5))               # [(key, score), …], highest first
print(client.search_by_value("active"))                             # ['status:alice', 'status:bob']
client.close()
