"""Ways to reach the Jobs service, all with the contract of `thingjobs.ports.Transport`.

    configured    which one a configuration asks for; begin here
    paho, awsiot, https, local     one each; the last is a folder of documents instead of a service
    reconnecting  the loop of the first three: connect, hold, explain, wait, again

    link, proxy, certificates, patience    where to and as whom, through what, with which files, and after how long
    dial, dialogue, websocket, signing     opening a connection: TCP, proxy, TLS, WebSocket, signature
    topics, session, course                MQTT: its names; one connection of paho; why a connection ended, in words
    awsiot_*      awscrt behind the same seam: settings, library, session, sockets, and its reasons in our words
    https_*       the HTTPS API: its wire forms, the line to the server, polls, and what replies mean

Each imports only its own library, and that when it is chosen: an idle agent has no other in memory.
"""
