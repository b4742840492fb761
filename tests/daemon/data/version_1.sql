PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE departures (
	number INTEGER NOT NULL, 
	task INTEGER NOT NULL, 
	device TEXT NOT NULL, 
	chosen FLOAT NOT NULL, 
	"left" FLOAT NOT NULL, 
	PRIMARY KEY (number), 
	FOREIGN KEY(task) REFERENCES tasks (number) ON DELETE CASCADE
);
INSERT INTO "departures" VALUES(1,1,'laptop',1767225601.0,1767225602.0);
INSERT INTO "departures" VALUES(2,6,'laptop',1767225615.0,1767225616.0);
CREATE TABLE results (
	task INTEGER NOT NULL, 
	part INTEGER NOT NULL, 
	body BLOB NOT NULL, 
	PRIMARY KEY (task, part), 
	FOREIGN KEY(task) REFERENCES tasks (number) ON DELETE CASCADE
);
INSERT INTO "results" VALUES(1,0,X'22303132333435363738393031323334353637383930313233343536373839303132333435363738393031323334353637383930313233343536373839303132');
INSERT INTO "results" VALUES(1,1,X'33343536373839303132333435363738393031323334353637383930313233343536373839303132333435363738393031323334353637383930313233343536');
INSERT INTO "results" VALUES(1,2,X'37383930313233343536373839303132333435363738393031323334353637383930313233343536373839303132333435363738393031323334353637383930');
INSERT INTO "results" VALUES(1,3,X'31323334353637383922');
INSERT INTO "results" VALUES(2,0,X'6E756C6C');
CREATE TABLE tasks (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	request TEXT NOT NULL, 
	asked_device TEXT, 
	os TEXT, 
	capabilities TEXT NOT NULL, 
	timeout FLOAT NOT NULL, 
	idempotency_key TEXT, 
	device TEXT, 
	created FLOAT NOT NULL, 
	started FLOAT, 
	ended FLOAT, 
	error TEXT, 
	result_size INTEGER, 
	retry_of TEXT, 
	UNIQUE (id), 
	UNIQUE (idempotency_key)
);
INSERT INTO "tasks" VALUES(1,'00000000000000000000000000000001','completed','list ö 😀','laptop',NULL,'[]',12.5,'monday-1','laptop',1767225600.0,1767225603.0,1767225604.0,NULL,202,NULL);
INSERT INTO "tasks" VALUES(2,'00000000000000000000000000000002','failed','print',NULL,'linux','["printer", "colour"]',1000.0,NULL,'desk',1767225605.0,1767225606.0,1767225607.0,'no paper',4,NULL);
INSERT INTO "tasks" VALUES(3,'00000000000000000000000000000003','cancelled','wait','laptop',NULL,'[]',1000.0,NULL,NULL,1767225608.0,NULL,1767225609.0,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(4,'00000000000000000000000000000004','lost','think',NULL,NULL,'[]',1000.0,NULL,'desk',1767225610.0,1767225611.0,1767225612.0,'it may have run',NULL,NULL);
INSERT INTO "tasks" VALUES(5,'00000000000000000000000000000005','queued','print',NULL,'linux','["printer", "colour"]',1000.0,NULL,NULL,1767225613.0,NULL,NULL,NULL,NULL,'00000000000000000000000000000002');
INSERT INTO "tasks" VALUES(6,'00000000000000000000000000000006','queued','return','laptop',NULL,'[]',1000.0,NULL,NULL,1767225614.0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(7,'00000000000000000000000000000007','running','run','desk',NULL,'[]',1000.0,'monday-2','desk',1767225617.0,1767225618.0,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(8,'00000000000000000000000000000008','queued','long xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx',NULL,NULL,'[]',1000.0,NULL,NULL,1767225619.0,NULL,NULL,NULL,NULL,NULL);
CREATE INDEX tasks_queued ON tasks (asked_device, os, capabilities, number) WHERE state = 'queued';
CREATE INDEX tasks_by_device ON tasks (device, number);
CREATE INDEX tasks_by_state ON tasks (state, number);
CREATE INDEX ix_departures_task ON departures (task);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('tasks',9);
COMMIT;
