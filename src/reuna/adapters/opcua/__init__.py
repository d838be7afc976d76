"""The source kind `opcua`: a server's values by subscription, and from its history. It only reads."""
